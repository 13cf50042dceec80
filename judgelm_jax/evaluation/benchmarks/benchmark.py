"""What every judge benchmark consists of: how its files are read, how its labels are reduced, and its own rule of scoring."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.formats.rows import Row, as_text, read_json, read_rows
from judgelm_jax.evaluation.joining import Judged
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import identity


@dataclasses.dataclass(frozen=True)
class Loaded:
    """Judge records and their labels, side by side, and counts of what had to be done to them.

    `kind` is the kind of judging (`pair`, `multi`, `single`, `multimodal`). A label has the identity of its record, for pairs a
    `winner` (1, 2, 0 for a tie, None where there is none), and what else the benchmark's rule asks for. `counts` holds
    `converted`: values that were no texts and became their JSON.
    """

    kind: str
    records: list[Record]
    labels: list[Record]
    counts: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Scored:
    """What a rule makes of judgments, an entry a label.

    `credits`: from 0 to 1, None where the item does not count. The score is their mean under `weights`. `decided`: the one
    verdict of each item, where the protocol gives one. `extra`: figures beside the score. `statistic`: the score, where it is
    no mean, of how often each item counts `[items]`; that is once but where questions are drawn anew for the interval.
    """

    credits: list[float | None]
    weights: list[float]
    decided: list[Judged | None] | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    statistic: Callable[[np.ndarray], float | None] | None = None


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One way to score: the `orders` that must be judged, the `rule` in a sentence, and the function from labels and judgments
    (None where one is missing), side by side, to credits."""

    orders: str
    rule: str
    score: Callable[[Sequence[Record], Sequence[Record | None]], Scored]


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A published figure, as a fraction of 1, and where it stands. `second_hand`: the source quotes another."""

    judge: str
    metric: str
    value: float
    source: str
    second_hand: bool = False


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A judge benchmark. The first reduction and the first protocol are the defaults.

    `read`: from the path the user gave and the name of a reduction. `read_predictions`: from the benchmark's own prediction
    files (parts, or for some one an order) to judgments; None where it publishes none. `group`: the field of a label by which
    the score is broken down, too. `add_answers`: the benchmark has questions only; puts the answers of a second file into
    what was read.
    """

    name: str
    title: str
    source: str
    reductions: Mapping[str, str]
    protocols: Mapping[str, Protocol]
    read: Callable[[Path, str], Loaded]
    read_predictions: Callable[[Sequence[Path], Loaded], list[Record]] | None = None
    group: str | None = None
    add_answers: Callable[[Loaded, Path], Loaded] | None = None
    baselines: tuple[Baseline, ...] = ()


def find_file(path: Path, *patterns: str) -> Path:
    """The file itself, or the one below a folder that fits the first pattern that any fits.

    Raises:
      InputError: nothing there, none fits, or several do.
    """
    found = find_files(path, *patterns)
    if len(found) > 1:
        raise InputError(f"{path}: {len(found)} files fit, such as {found[0]} and {found[1]}; name the one with --data")
    return found[0]


def find_files(path: Path, *patterns: str) -> list[Path]:
    """As `find_file`, but all files that fit, in the order of their names."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give the benchmark's original file, its folder or its repository")
    for pattern in patterns:
        found = sorted(file for file in path.rglob(pattern) if file.is_file())
        if found:
            return found
    raise InputError(f"{path}: there is no {' or '.join(patterns)} below it; give the benchmark's original file or its folder")


def rows_of(paths: Sequence[Path]) -> list[Row]:
    """The rows of all files, as of a benchmark that publishes its predictions in parts."""
    return [row for path in paths for row in read_rows(path)]


def columns_of(paths: Sequence[Path], *names: str) -> list[Row]:
    """The rows of files that are one JSON object of lists of equal length, a list a column; other rows as `read_rows` has them.

    `names`: the columns that are wanted; others may hold anything. One that is missing, or null, is missing in every row. The
    first is a list in an object of columns and none in a row.
    """
    rows: list[Row] = []
    for path in paths:
        try:
            table = read_json(path)
        except InputError:
            table = None  # JSON Lines, or no JSON, of which `read_rows` says more
        held = {name: table.get(name) for name in names} if isinstance(table, dict) else {}
        columns = {name: column for name, column in held.items() if isinstance(column, list)}
        if names[0] not in columns:
            rows += read_rows(path)
            continue
        if len({len(column) for column in columns.values()}) > 1:
            raise InputError(f"{path}: its columns have different lengths; fetch the file again")
        items = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
        rows += [(f"{path}: item {number}", item) for number, item in enumerate(items)]
    return rows


def require(item: Record, *names: str) -> None:
    """Raises an `InputError` without place where a field is missing."""
    missing = next((name for name in names if name not in item), None)
    if missing is not None:
        raise InputError(f"the field {missing!r} is missing; fetch the file again, or check that it is the benchmark's own")


def choice(item: Record, field: str, meanings: Mapping[Any, int]) -> int:
    """The winner that a label stands for. Raises an `InputError` without place where the benchmark knows no such label."""
    require(item, field)
    value = item[field]
    if isinstance(value, (bool, list, dict)) or value not in meanings:
        known = ", ".join(repr(name) for name in meanings)
        raise InputError(f"{field} is {value!r}; the benchmark has {known}")
    return meanings[value]


def texts_of(item: Record, *names: str) -> tuple[list[str], int]:
    """Fields that must be texts, as texts, and how many of them were none and became their JSON."""
    require(item, *names)
    pairs = [as_text(item[name]) for name in names]
    return [text for text, _ in pairs], sum(converted for _, converted in pairs)


def distinct(key: str, seen: Counter[str]) -> str:
    """The key, and from its second occurrence on with a number: for files whose ids are not promised to be unique."""
    seen[key] += 1
    return key if seen[key] == 1 else f"{key}#{seen[key]}"


def exchanged(winner: int | None) -> int | None:
    """The winner in the other order."""
    return 3 - winner if winner else winner


def text_id(*texts: str) -> str:
    """A short id that stands for texts: the same texts have the same id in every part and order of a file."""
    digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:12]


def convert(path: Path, rows: Iterable[Row], to_pair: Callable[[int, Record], tuple[Record, Record, int]]) -> Loaded:
    """Records and labels of pairs.

    Args:
      path: what the user named, for messages.
      rows: of its files.
      to_pair: from the position of a row, from 0, and the row to record, label, and number of values that were converted.

    Raises:
      InputError: names the row; also where two rows have one identity.
    """
    loaded = Loaded("pair", [], [], {"converted": 0})
    seen: dict[str, str] = {}
    for position, (place, row) in enumerate(rows):
        try:
            record, label, converted = to_pair(position, row)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        key = identity(record)
        if key in seen:
            raise InputError(f"{place}: the id {key} is already in {seen[key]}; fetch the file again")
        seen[key] = place
        loaded.records.append(record)
        loaded.labels.append(label)
        loaded.counts["converted"] += converted
    if not loaded.records:
        raise InputError(f"{path}: holds no items; fetch the file again, or check that it is the benchmark's own")
    return loaded


def imported(record: Record, judge: str, *winners: int | None, text: str = "") -> Record:
    """A judgment in our form of a verdict that another tool made.

    Args:
      record: what was judged.
      judge: the judge's name.
      winners: in the record's own order; of one game, or of the forward and the reversed one. The merged winner of two is
        that of their mean: a conflict is a tie.
      text: what the judge wrote.
    """
    row = {**record, "pred_text": text, "pred_model_id": judge}
    games = [{"pred_text": "", "status": "unparsed" if winner is None else "ok", "winner": winner} for winner in winners]
    if len(games) == 1:
        return {**row, **games[0], "pred_text": text, "order": "forward"}
    worth = {1: 1, 0: 0, 2: -1}
    values = [None if winner is None else worth[winner] for winner in winners]
    merged = None if None in values else sum(value for value in values if value is not None)
    winner = None if merged is None else 1 if merged > 0 else 2 if merged < 0 else 0
    outcome = {"status": "unparsed" if winner is None else "ok", "winner": winner}
    consistent = winners[0] is not None and winners[0] == winners[1]
    return {**row, **outcome, "order": "both", "consistent": consistent, "forward": games[0], "reversed": games[1]}
