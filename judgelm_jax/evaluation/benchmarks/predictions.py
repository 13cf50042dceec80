"""Predictions to score: our judgments, of one order, of both or of one file an order, or the benchmark's own files."""

from collections.abc import Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.benchmark import Benchmark, Loaded, imported
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.evaluation.joining import join_rows
from judgelm_jax.evaluation.joining import read_predictions as check_predictions
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import identity


def read_predictions(benchmark: Benchmark, loaded: Loaded, paths: Sequence[Path]) -> list[Record]:
    """Judgments of the benchmark's records, whoever made them.

    Two files of ours are the games of the forward and the reversed order; the benchmark's own may come in parts.

    Raises:
      InputError: a file that is neither ours nor the benchmark's; names the row.
    """
    if not _is_ours(paths[0]):
        if benchmark.read_predictions is None:
            raise InputError(
                f"{paths[0]}: holds no judgments (rows with 'pred_text'); {benchmark.name} knows no other predictions"
            )
        return benchmark.read_predictions(paths, loaded)
    if len(paths) > 2:
        raise InputError(f"{paths[2]}: a third file of judgments; give one file, or one of each order")
    files = [_read_ours(path, loaded.kind) for path in paths]
    return files[0] if len(files) == 1 else _both_orders(paths, files)


def _is_ours(path: Path) -> bool:
    try:
        rows = read_rows(path)
    except InputError:
        if path.suffix == ".jsonl":
            raise
        return False  # a benchmark may publish one JSON object, or text
    return bool(rows) and "pred_text" in rows[0][1]


def _read_ours(path: Path, kind: str) -> list[Record]:
    if kind == "pair":
        check_predictions(path, "tolerant")  # refuses with file and line what cannot be scored
    return [row for _, row in read_rows(path)]


def _both_orders(paths: Sequence[Path], files: Sequence[list[Record]]) -> list[Record]:
    forward, back = files
    others = {identity(row): {"order": "reversed", **row} for row in back}
    merged = []
    for row in forward:
        other = others.get(identity(row))
        if other is None:
            continue
        (one,), (two,) = (join_rows([0], [game]).predictions for game in (row, other))
        if one.forward is None or two.reversed is None or one.reversed is not None or two.forward is not None:
            raise InputError(f"{paths[0]} and {paths[1]}: the first must hold forward games, the second reversed ones")
        winners = (one.forward.winner, two.reversed.winner)
        judgment = imported(row, str(row.get("pred_model_id", "")), *winners, text=row["pred_text"])
        merged.append(_by_scores(judgment, row.get("scores"), other.get("scores")))
    return merged


def _by_scores(judgment: Record, one: object, other: object) -> Record:
    """The merged winner by the mean of the scores, where both games have them, as `judge --orders=both` says it."""
    if not (isinstance(one, list) and isinstance(other, list) and judgment["winner"] is not None):
        return {**judgment, "scores": None}
    scores = [(first + second) / 2 for first, second in zip(one, other, strict=True)]
    winner = 0 if scores[0] == scores[1] else 1 if scores[0] > scores[1] else 2
    return {**judgment, "scores": scores, "winner": winner}
