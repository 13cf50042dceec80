"""Judgments written in the forms that other tools read."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.formats import alpaca_eval, arena_hard, inspect_ai, lmarena, mt_bench, tables
from judgelm_jax.records.json_lines import Record, dump_line
from judgelm_jax.records.output_files import write_atomically

_OF_ROWS: dict[str, Callable[[Record], list[Record]]] = {
    "alpaca_eval": lambda row: [alpaca_eval.annotation(row)],
    "mt_bench": lambda row: [mt_bench.judgment(row)],
    "arena_hard": lambda row: [arena_hard.judgment(row)],
    "lmarena": lmarena.battles,
    "inspect_ai": lambda row: [score for score in [inspect_ai.score(row)] if score is not None],
}
_TABLES = {"csv": tables.write_csv, "parquet": tables.write_parquet}
_OF_PAIRS = ("alpaca_eval", "mt_bench", "arena_hard", "lmarena")

FORMATS = (*_OF_ROWS, *_TABLES)


def write_judgments(path: Path, name: str, rows: Sequence[tuple[str, Record]]) -> dict[str, int]:
    """Writes judgments, with their places, in a form of `FORMATS`.

    Returns the numbers of judgments, of rows written, and of judgments without a verdict.

    Raises:
      InputError: a row that is no judgment, or none of a pair where the form is one of pairs; names the row.
    """
    for place, row in rows:
        if "pred_text" not in row:
            raise InputError(f"{place}: the field 'pred_text' is missing; --judgments takes what judgelm-judge wrote")
        if name in _OF_PAIRS and ("answer3_body" in row or row.get("winner", 0) not in (0, 1, 2, None)):
            raise InputError(f"{place}: is no judgment of a pair; {name} holds pairs, csv and parquet hold anything")
    judgments = [row for _, row in rows]
    without = sum(row.get("winner") is None and not row.get("scores") for row in judgments)
    if name in _TABLES:
        _TABLES[name](path, judgments)
        return {"judgments": len(rows), "written": len(rows), "without_verdict": without}
    made = [item for row in judgments for item in _OF_ROWS[name](row)]
    (_write_list if name == "alpaca_eval" else _write_lines)(path, made)
    return {"judgments": len(rows), "written": len(made), "without_verdict": without}


def _write_lines(path: Path, rows: Iterable[Record]) -> None:
    with write_atomically(path) as file:
        for row in rows:
            file.write(dump_line(row) + "\n")


def _write_list(path: Path, rows: Iterable[Record]) -> None:
    with write_atomically(path) as file:
        file.write(json.dumps(list(rows), indent=1, allow_nan=False) + "\n")
