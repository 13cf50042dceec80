"""Files of answers in any known form, read as answers of one model each."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.formats import alpaca_eval, arena_hard, mt_bench
from judgelm_jax.evaluation.formats.rows import Row, as_text, read_rows
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import check_reference, question_identity, reference_of

FORMATS = ("auto", "judgelm", "mt_bench", "alpaca_eval", "arena_hard", "llmbar")


# The fields that a form gives us under other names.
_CONSUMED = {
    "judgelm": frozenset(),
    "mt_bench": frozenset({"choices"}),
    "alpaca_eval": frozenset({"instruction", "output", "generator"}),
    "arena_hard": frozenset({"uid", "messages"}),
}


@dataclasses.dataclass(frozen=True)
class Answers:
    """The answers of one model by question, in the order of the file, and where each is in it.

    `converted`: values that should be texts, were none and became their JSON. `nulls`: answers that are null and became empty.
    """

    model: str
    rows: dict[str, Record]
    places: dict[str, str]
    converted: int = 0
    nulls: int = 0


@dataclasses.dataclass(frozen=True)
class Reading:
    """How answer files are read.

    `format`: one of `FORMATS`. `columns`: our field by its name in the file. `questions`: MT-Bench's questions by id. `turns`:
    conversations are cut after this many; None: not at all.
    """

    format: str = "auto"
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    questions: Mapping[str, Record] = dataclasses.field(default_factory=dict)
    turns: int | None = None


def read_answers(path: Path, reading: Reading) -> list[Answers]:
    """The answers of a file, a group a model.

    A file holds one model's answers; where an id comes again with another `model`, a group is made of each model. Rows with two
    outputs give two groups.

    Raises:
      InputError: names the row that is wrong.
    """
    rows = [(place, _renamed(place, row, reading.columns)) for place, row in read_rows(path)]
    if not rows:
        raise InputError(f"{path}: holds no answers; write one JSON object a line, or check --format")
    name = _detected(rows[0][1]) if reading.format == "auto" else reading.format
    if name == "llmbar":
        pairs = [(place, *_at(place, alpaca_eval.pair_answers, row, number)) for number, (place, row) in enumerate(rows)]
        return [_group(path, [(place, pair[side]) for place, *pair in pairs]) for side in (0, 1)]
    read = {
        "judgelm": lambda row: row,
        "mt_bench": lambda row: mt_bench.answer(row, reading.questions, reading.turns),
        "alpaca_eval": alpaca_eval.answer,
        "arena_hard": lambda row: arena_hard.answer(row, reading.turns),
    }[name]
    answers = [(place, _unknown(row, _CONSUMED[name]) | _at(place, read, row)) for place, row in rows]
    return [_group(path, group) for group in _by_model(answers)]


def read_references(path: Path, turns: int | None) -> dict[str, str]:
    """References by question_id: rows with `reference`, or rows of MT-Bench's `reference_answer`.

    Raises:
      InputError: a row without reference, or a second one to a question; names the row.
    """
    references: dict[str, str] = {}
    for place, row in read_rows(path):
        try:
            check_reference(row)
            key, text = question_identity(row), mt_bench.reference(row, turns) or reference_of(row)
            if text is None:
                raise InputError("the field 'reference' is missing; give a string or an object with a 'text'")
            if key in references:
                raise InputError(f"question_id {key!r} is there already; keep one reference of them")
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        references[key] = text
    return references


def _unknown(row: Record, consumed: frozenset[str]) -> Record:
    """The fields that no reader knows: they are kept."""
    return {field: value for field, value in row.items() if field not in consumed}


def _detected(row: Record) -> str:
    if mt_bench.is_answers(row):
        return "mt_bench"
    if arena_hard.is_answers(row):
        return "arena_hard"
    if alpaca_eval.is_pair(row):
        return "llmbar"
    return "alpaca_eval" if alpaca_eval.is_answers(row) else "judgelm"


def _renamed(place: str, row: Record, columns: Mapping[str, str]) -> Record:
    missing = next((column for column in columns.values() if column not in row), None)
    if missing is not None:
        once = "; give --map once for each field" if "," in missing and "=" in missing else ""
        raise InputError(f"{place}: there is no column {missing!r} for --map; the row has {', '.join(map(repr, row))}{once}")
    kept = {name: value for name, value in row.items() if name not in columns.values()}
    return kept | {field: row[column] for field, column in columns.items()}


def _at(place: str, read: Callable[..., Any], *arguments: object) -> Any:
    try:
        return read(*arguments)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def _by_model(rows: Sequence[Row]) -> list[list[Row]]:
    for place, row in rows:
        if row.get("question_id") is None:
            raise InputError(f"{place}: the field 'question_id' is missing; add an id, or name its column with --map")
    ids = [_at(place, question_identity, row) for place, row in rows]
    models = [str(row.get("model")) for _, row in rows]
    if len(set(ids)) == len(ids) or len(set(zip(ids, models, strict=True))) < len(ids):
        return [list(rows)]  # one model; or one that answers twice, which is refused where it is named
    return [[row for row, model in zip(rows, models, strict=True) if model == name] for name in dict.fromkeys(models)]


def _group(path: Path, rows: Sequence[Row]) -> Answers:
    answers: dict[str, Record] = {}
    places: dict[str, str] = {}
    converted = nulls = 0
    for place, row in rows:
        try:
            key = question_identity(row)
            if key in answers:
                raise InputError(f"question_id {key!r} is already in {places[key]}; keep one answer to each question")
            row = dict(row)
            for field in ("question_body", "text"):
                if field not in row:
                    raise InputError(f"the field {field!r} is missing; add it as a string, or name its column with --map")
            if row["question_body"] is None:
                raise InputError("question_body is null; give the question that was answered")
            if row["text"] is None:
                row["text"] = ""
                nulls += 1
            for field in ("question_body", "text"):
                row[field], made = as_text(row[field])
                converted += made
            check_reference(row)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        answers[key], places[key] = row, place
    model = next((row["model"] for row in answers.values() if row.get("model")), None)
    return Answers(str(model or _stem(path)), answers, places, converted, nulls)


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem
