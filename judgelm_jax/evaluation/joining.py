"""Labels and judgments, read from their files and joined by identity."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from judgelm_jax import verdicts
from judgelm_jax.errors import InputError
from judgelm_jax.records import Record, identity, read_jsonl

PARSERS = ("tolerant", "upstream")

_SHOWN_REVERSED = {1: 2, 2: 1, 0: 0, None: None}


@dataclasses.dataclass(frozen=True)
class Judged:
    """The status of one judgment, and its winner in the record's own order: 1, 2, 0 for a tie, None without one."""

    status: str
    winner: int | None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One row of a judgment file. `headline` is what is held against the label; single orders are None where not judged."""

    line: int
    headline: Judged
    forward: Judged | None
    reversed: Judged | None


@dataclasses.dataclass(frozen=True)
class Joined:
    """Labels (1, 2, 0) and their predictions, side by side, and the counts of what did not meet.

    `labels_dropped`: the teacher failed. `missing`: labels without a prediction. `unlabelled`: predictions without a label.
    """

    labels: list[int]
    predictions: list[Prediction]
    labels_dropped: int
    missing: int
    unlabelled: int


def read_labels(path: Path, parser: str) -> dict[str, int | None]:
    """The winner (1, 2, 0 for a tie) by identity, in file order; None where the teacher failed.

    A row has `winner`, or `text` (its first line holds the scores), or `score`. A score of -1 says that the teacher failed, and
    so does a text that does not parse, unless a `score` from 0 to 10 stands beside it.

    Raises:
      InputError: a row with none of them, a value out of range, or two rows with one id.
    """
    read = _upstream_label if parser == "upstream" else _label
    labels: dict[str, int | None] = {}
    lines: dict[str, int] = {}
    for line, row in read_jsonl(path):
        try:
            key = _new_key(row, lines, line)
            labels[key] = read(row)
        except InputError as error:
            raise InputError(f"{path}:{line}: {error}") from error
    return labels


def read_predictions(path: Path, parser: str, order: str = "forward") -> dict[str, Prediction]:
    """The rows of a judgment file by identity, in file order.

    Args:
      path: the file; every row has a `pred_text`, and ours say more.
      parser: `tolerant` takes `winner` and `status` where a row has them and parses `pred_text` where it has not;
        `upstream` parses `pred_text` as the published metric code does, for merged rows that of the forward order.
      order: the order in which answers were shown in rows that do not say it, `forward` or `reversed`.

    Raises:
      InputError: a row without `pred_text`, with a field of the wrong type, or two rows with one id.
    """
    predictions: dict[str, Prediction] = {}
    lines: dict[str, int] = {}
    for line, row in read_jsonl(path):
        try:
            key = _new_key(row, lines, line)
            predictions[key] = _prediction(row, line, parser, order)
        except InputError as error:
            raise InputError(f"{path}:{line}: {error}") from error
    return predictions


def join_files(labels_path: Path, predictions_path: Path, reversed_path: Path | None, parser: str) -> Joined:
    """Reads and joins a label file, a judgment file, and where there is one the judgments of the reversed order.

    A label counts as missing where one of the judgment files has no row for it; it then counts in no metric.

    Raises:
      InputError: see `read_labels` and `read_predictions`; orders that do not go together; no id in common.
    """
    labels = read_labels(labels_path, parser)
    predictions = read_predictions(predictions_path, parser)
    unlabelled = sum(key not in labels for key in predictions)
    if reversed_path is not None:
        others = read_predictions(reversed_path, parser, "reversed")
        unlabelled += sum(key not in labels and key not in predictions for key in others)
        predictions = _pair_orders(predictions_path, predictions, reversed_path, others)
    elif len({(row.forward is None, row.reversed is None) for row in predictions.values()}) > 1:
        raise InputError(f"{predictions_path}: rows of different orders are mixed; evaluate each order by itself")
    matched = [key for key in labels if key in predictions]
    if labels and not matched:
        raise InputError(f"{predictions_path}: no row has an id of {labels_path}; check that the files belong together")
    kept = [(winner, predictions[key]) for key in matched if (winner := labels[key]) is not None]
    return Joined(
        labels=[winner for winner, _ in kept],
        predictions=[prediction for _, prediction in kept],
        labels_dropped=sum(winner is None for winner in labels.values()),
        missing=sum(winner is not None and key not in predictions for key, winner in labels.items()),
        unlabelled=unlabelled,
    )


def join_rows(labels: Sequence[int], rows: Sequence[Record]) -> Joined:
    """Judgments just made beside the winners (1, 2, 0) that they should name, in the same order."""
    predictions = [_prediction(row, 0, "tolerant", "forward") for row in rows]
    return Joined(list(labels), predictions, labels_dropped=0, missing=0, unlabelled=0)


def _pair_orders(
    path: Path, predictions: Mapping[str, Prediction], reversed_path: Path, others: Mapping[str, Prediction]
) -> dict[str, Prediction]:
    """Puts the judgments of the reversed order beside those of the forward order."""
    for row in predictions.values():
        if row.reversed is not None:
            raise InputError(f"{path}:{row.line}: order is not 'forward'; beside --reversed_predictions only that fits")
    for row in others.values():
        if row.forward is not None:
            raise InputError(f"{reversed_path}:{row.line}: order is not 'reversed'; --reversed_predictions takes no other")
    return {key: dataclasses.replace(row, reversed=others[key].reversed) for key, row in predictions.items() if key in others}


def _new_key(row: Record, lines: dict[str, int], line: int) -> str:
    key = identity(row)
    if key in lines:
        raise InputError(f"the id {key!r} stands already in line {lines[key]}; keep one row for each id")
    lines[key] = line
    return key


def _label(row: Record) -> int | None:
    if row.get("winner") is not None:
        return _winner(row["winner"])
    score = _score_pair(row)
    if score is not None and -1 in score:
        return None
    scores = (verdicts.parse_scores(_text(row, "text"), 2) or score) if "text" in row else score
    if scores is not None:
        return verdicts.winner_of(scores)
    if "text" in row:
        return None
    if row.get("score") is not None:
        raise InputError("score is no pair of numbers from 0 to 10 (or -1); mend it, or give 'text' or 'winner'")
    if "winner" in row:
        return None
    raise InputError("none of the fields 'winner', 'text' and 'score' is there; a label needs one of them")


def _upstream_label(row: Record) -> int | None:
    if "text" not in row:
        return _label(row)
    scores = verdicts.parse_scores_upstream(_text(row, "text"))
    return None if -1 in scores else verdicts.winner_of(scores)


def _score_pair(row: Record) -> list[float] | None:
    """The teacher's `score`; None for anything else, for in published files it may be a list of generation statistics."""
    score = row.get("score")
    if not isinstance(score, list) or len(score) != 2:
        return None
    usable = all(type(value) in (int, float) and (0 <= value <= 10 or value == -1) for value in score)
    return score if usable else None


def _prediction(row: Record, line: int, parser: str, order: str) -> Prediction:
    shown = row.get("order", order)
    if shown not in ("forward", "reversed", "both"):
        raise InputError(f"order is {shown!r}; it is 'forward', 'reversed' or 'both'")
    if shown != "both":
        judged = _judged(row, parser, shown)
        return Prediction(line, judged, judged if shown == "forward" else None, judged if shown == "reversed" else None)
    for side in ("forward", "reversed"):
        if not isinstance(row.get(side), dict):
            raise InputError(f"order is 'both' but the object {side!r} is missing; judge the record again")
    forward, back = _judged(row["forward"], parser, "forward"), _judged(row["reversed"], parser, "reversed")
    # The published code reads the `pred_text` of a merged row, which is that of the forward order.
    headline = _judged(row, parser, "forward")
    return Prediction(line, headline, forward, back)


def _judged(row: Record, parser: str, shown: str) -> Judged:
    """The outcome of a row, or of one order of a merged row; `shown` is the order of its `pred_text`."""
    text = _text(row, "pred_text")
    status = row.get("status")
    if status is not None and status not in verdicts.STATUSES:
        raise InputError(f"status is {status!r}; it is one of {', '.join(verdicts.STATUSES)}")
    if parser == "tolerant" and status is not None and "winner" in row:
        winner = None if row["winner"] is None else _winner(row["winner"])
    else:
        winner = _parsed_winner(text, parser, shown)
    if winner is not None:
        return Judged("truncated" if status == "truncated" else "ok", winner)
    return Judged("overflow" if status == "overflow" else "unparsed", None)


def _parsed_winner(text: str, parser: str, shown: str) -> int | None:
    """The winner in the record's own order."""
    scores = verdicts.parse_scores_upstream(text) if parser == "upstream" else verdicts.parse_scores(text, 2)
    if scores is None or scores == [-1, -1]:
        return None
    winner = verdicts.winner_of(scores)
    return winner if shown == "forward" else _SHOWN_REVERSED[winner]


def _winner(value: object) -> int:
    if type(value) is not int or value not in (0, 1, 2):
        raise InputError(f"winner is {value!r}; for a pair it is 1, 2 or 0 for a tie")
    return value


def _text(row: Record, field: str) -> str:
    if not isinstance(row.get(field), str):
        raise InputError(f"the field {field!r} is missing or no string; every row needs it")
    return row[field]
