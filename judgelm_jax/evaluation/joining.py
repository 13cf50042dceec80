"""Labels and judgments, from their files or as rows, joined by identity."""

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.labels import Label, number_as_int, read_label
from judgelm_jax.records.json_lines import Record, plain_text, read_jsonl
from judgelm_jax.records.records import answers_of, identity
from judgelm_jax.verdicts import score_lines, verdicts

# A file of JSON Lines, or its rows.
Source = Path | Sequence[Record]

PARSERS = ("tolerant", "upstream")
DECISIONS = ("winner", "mean", "mode")

_SHOWN_REVERSED = {1: 2, 2: 1, 0: 0, None: None}


@dataclasses.dataclass(frozen=True)
class Judged:
    """The status of one judgment, and its winner in the record's own order: 1, 2, 0 for a tie, None without one."""

    status: str
    winner: int | None


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a record says beside its verdict. `lengths` in characters, `models` the ids of the two answers' models.

    `cluster` is None where the record lacks the field by which intervals are computed; it is then a cluster of its own.
    """

    cluster: str | None = None
    group: str | None = None
    lengths: tuple[int, int] | None = None
    models: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Prediction:
    """One row of a judgment file. `headline` is what is held against the label; single orders are None where not judged.

    `scores` (of the two answers, expected scores where there are any) and `probabilities` (first wins, tie, second wins) are in
    the record's own order.
    """

    line: int
    headline: Judged
    forward: Judged | None
    reversed: Judged | None
    scores: tuple[float, float] | None = None
    probabilities: tuple[float, float, float] | None = None
    facts: Facts = Facts()


@dataclasses.dataclass(frozen=True)
class Fields:
    """The fields of a record (dots lead into objects) that name its cluster and its group."""

    cluster: str = "question_id"
    group: str | None = None


@dataclasses.dataclass(frozen=True)
class Joined:
    """Labels (1, 2, 0) and their predictions, side by side, and the counts of what did not meet.

    `labels` is None where judgments are looked at without labels. `labels_dropped`: the teacher failed, or the label is out of
    range (`labels_out_of_range` of them). `missing`: labels without a prediction. `unlabelled`: predictions without a label.
    `people`: what the single annotators said, where labels carry them. `teacher_scores`: the labels' own two scores.
    """

    labels: list[int] | None
    predictions: list[Prediction]
    labels_dropped: int
    missing: int
    unlabelled: int
    labels_out_of_range: int = 0
    people: list[tuple[int | None, ...] | None] = dataclasses.field(default_factory=list)
    teacher_scores: list[tuple[float, float] | None] = dataclasses.field(default_factory=list)
    keys: list[str] = dataclasses.field(default_factory=list)
    unlabelled_predictions: list[Prediction] = dataclasses.field(default_factory=list)
    unlabelled_keys: list[str] = dataclasses.field(default_factory=list)

    def clusters(self) -> list[Hashable]:
        """One a prediction; a record that lacks the field is a cluster of its own."""
        return [
            ("without", number) if row.facts.cluster is None else row.facts.cluster
            for number, row in enumerate(self.predictions)
        ]

    def only(self, indices: Sequence[int]) -> "Joined":
        """These of its predictions, with what is beside them; the counts of what did not meet are none."""
        return Joined(
            labels=None if self.labels is None else [self.labels[index] for index in indices],
            predictions=[self.predictions[index] for index in indices],
            labels_dropped=0,
            missing=0,
            unlabelled=0,
            people=[self.people[index] for index in indices] if self.people else [],
            teacher_scores=[self.teacher_scores[index] for index in indices] if self.teacher_scores else [],
            keys=[self.keys[index] for index in indices] if self.keys else [],
        )


def read_labels(source: Source, parser: str, fields: Fields = Fields()) -> dict[str, tuple[Label, Facts]]:
    """The label of each identity, in file order, and what else its row says; see `labels.read_label`.

    Raises:
      InputError: a row that is no label, or two rows with one id.
    """
    labels: dict[str, tuple[Label, Facts]] = {}
    lines: dict[str, int] = {}
    for line, row in _numbered(source):
        try:
            key = _new_key(row, lines, line)
            labels[key] = read_label(row, parser), _facts(row, fields)
        except InputError as error:
            raise InputError(f"{_name(source, 'labels')}:{line}: {error}") from error
    return labels


def read_predictions(
    source: Source, parser: str, order: str = "forward", decide: str = "winner", fields: Fields = Fields()
) -> dict[str, Prediction]:
    """The rows of a judgment file by identity, in file order.

    Args:
      source: the file, or its rows; every row has a `pred_text`, and ours say more.
      parser: `tolerant` takes `winner` and `status` where a row has them and parses `pred_text` where it has not;
        `upstream` parses `pred_text` as the published metric code does, for merged rows that of the forward order.
      order: the order in which answers were shown in rows that do not say it, `forward` or `reversed`.
      decide: how a row with a distribution over scores becomes a winner: as it says itself, by the larger of the `mean`
        (expected) scores, or by the `mode` (the scores of the most likely line). Needs `expected_scores` or `scores`.
      fields: which fields name cluster and group.

    Raises:
      InputError: a row without `pred_text`, with a field of the wrong type, or two rows with one id.
    """
    predictions: dict[str, Prediction] = {}
    lines: dict[str, int] = {}
    for line, row in _numbered(source):
        try:
            key = _new_key(row, lines, line)
            predictions[key] = dataclasses.replace(_prediction(row, line, parser, order, decide), facts=_facts(row, fields))
        except InputError as error:
            raise InputError(f"{_name(source, 'judgments')}:{line}: {error}") from error
    return predictions


def join(
    labels_source: Source | None,
    predictions_source: Source,
    reversed_source: Source | None,
    parser: str,
    *,
    decide: str = "winner",
    fields: Fields = Fields(),
) -> Joined:
    """Reads and joins labels (if any), judgments, and where there are any the judgments of the reversed order.

    A label counts as missing where judgments of one order have no row for it; it then counts in no metric.

    Raises:
      InputError: see `read_labels` and `read_predictions`; orders that do not go together; no id in common.
    """
    name = _name(predictions_source, "judgments")
    labels = {} if labels_source is None else read_labels(labels_source, parser, fields)
    predictions = read_predictions(predictions_source, parser, decide=decide, fields=fields)
    unlabelled = sum(key not in labels for key in predictions)
    if reversed_source is not None:
        others = read_predictions(reversed_source, parser, "reversed", decide, fields)
        unlabelled += sum(key not in labels and key not in predictions for key in others)
        predictions = _pair_orders(predictions_source, predictions, reversed_source, others)
    elif len({(row.forward is None, row.reversed is None) for row in predictions.values()}) > 1:
        raise InputError(f"{name}: rows of different orders are mixed; evaluate each order by itself")
    if labels_source is None:
        return Joined(None, list(predictions.values()), 0, 0, 0, keys=list(predictions))
    if not labels:
        raise InputError(f"{_name(labels_source, 'labels')}: is empty; give labels of these judgments, or leave --labels out")
    matched = [key for key in labels if key in predictions]
    if not matched:
        ids = f"the first ids are {_first(predictions)} and {_first(labels)}" if predictions else "it is empty"
        raise InputError(
            f"{name}: no row has an id of {_name(labels_source, 'labels')} ({ids}); the id of a row is its pair_id where it "
            "has one, else its question_id: give both files the same"
        )
    kept = [key for key in matched if labels[key][0].winner is not None]
    return Joined(
        labels=[winner for key in kept if (winner := labels[key][0].winner) is not None],
        predictions=[_with_facts(predictions[key], labels[key][1]) for key in kept],
        labels_dropped=sum(label.winner is None for label, _ in labels.values()),
        missing=sum(label.winner is not None and key not in predictions for key, (label, _) in labels.items()),
        unlabelled=unlabelled,
        labels_out_of_range=sum(label.out_of_range for label, _ in labels.values()),
        people=[labels[key][0].annotators for key in kept],
        teacher_scores=[labels[key][0].scores for key in kept],
        keys=kept,
        unlabelled_predictions=[row for key, row in predictions.items() if key not in labels],
        unlabelled_keys=[key for key in predictions if key not in labels],
    )


def join_rows(labels: Sequence[int], rows: Sequence[Record]) -> Joined:
    """Judgments just made beside the winners (1, 2, 0) that they should name, in the same order."""
    predictions = [
        dataclasses.replace(_prediction(row, 0, "tolerant", "forward", "winner"), facts=_facts(row, Fields())) for row in rows
    ]
    return Joined(list(labels), predictions, labels_dropped=0, missing=0, unlabelled=0)


def _pair_orders(
    source: Source, predictions: Mapping[str, Prediction], reversed_source: Source, others: Mapping[str, Prediction]
) -> dict[str, Prediction]:
    """Puts the judgments of the reversed order beside those of the forward order."""
    for row in predictions.values():
        if row.reversed is not None:
            place = f"{_name(source, 'judgments')}:{row.line}"
            raise InputError(f"{place}: order is not 'forward'; beside --reversed_predictions only that fits")
    for row in others.values():
        if row.forward is not None:
            place = f"{_name(reversed_source, 'reversed judgments')}:{row.line}"
            raise InputError(f"{place}: order is not 'reversed'; --reversed_predictions takes no other")
    return {
        key: _with_facts(dataclasses.replace(row, reversed=others[key].reversed), others[key].facts)
        for key, row in predictions.items()
        if key in others
    }


def _numbered(source: Source) -> Iterable[tuple[int, Record]]:
    return read_jsonl(source) if isinstance(source, Path) else enumerate(source, start=1)


def _first(rows: Mapping[str, object]) -> str:
    return repr(next(iter(rows))[:60])


def _name(source: Source | None, rows: str) -> str:
    """For messages: the file, or what the rows are."""
    return str(source) if isinstance(source, Path) else rows


def _with_facts(row: Prediction, others: Facts) -> Prediction:
    """Facts that the prediction lacks are those of another row of the same record."""
    own = {name: value for name, value in vars(row.facts).items() if value is not None}
    return dataclasses.replace(row, facts=dataclasses.replace(others, **own))


def _facts(row: Record, fields: Fields) -> Facts:
    answers = answers_of(row)
    models = [row.get("answer1_model_id"), row.get("answer2_model_id")]
    both_texts = len(answers) >= 2 and isinstance(answers[0], str) and isinstance(answers[1], str)
    return Facts(
        cluster=_field_text(row, fields.cluster),
        group=None if fields.group is None else _field_text(row, fields.group),
        lengths=(len(answers[0]), len(answers[1])) if both_texts else None,
        models=None if None in models else (plain_text(models[0]), plain_text(models[1])),
    )


def _field_text(row: Record, field: str) -> str | None:
    """The value of a field as text, `metadata.category` of the object `metadata`; None where it is missing or null."""
    if field in row:
        value: Any = row[field]
    else:
        value = row
        for part in field.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    return None if value is None else plain_text(value)


def _new_key(row: Record, lines: dict[str, int], line: int) -> str:
    key = identity(row)
    if key in lines:
        raise InputError(f"the id {key!r} is already in line {lines[key]}; keep one row for each id")
    lines[key] = line
    return key


def _prediction(row: Record, line: int, parser: str, order: str, decide: str) -> Prediction:
    shown = order if row.get("order") is None else row["order"]
    if shown in ("arrangements", "pairs"):
        raise InputError(
            "this is a judgment of one answer or of more than two, and judgelm-evaluate is of pairs; judgelm-rank ranks by "
            "judgments of many answers, and judgelm-benchmark scores those of a benchmark"
        )
    if shown not in ("forward", "reversed", "both"):
        raise InputError(f"order is {shown!r}; it is 'forward', 'reversed' or 'both'")
    scores, probabilities = _own_scores(row, shown, parser), _probabilities(row)
    if shown != "both":
        judged = _judged(row, parser, shown, decide)
        forward, back = (judged, None) if shown == "forward" else (None, judged)
        return Prediction(line, judged, forward, back, scores, probabilities)
    for side in ("forward", "reversed"):
        if not isinstance(row.get(side), dict):
            raise InputError(f"order is 'both' but the object {side!r} is missing; judge the record again")
    forward, back = _judged(row["forward"], parser, "forward", decide), _judged(row["reversed"], parser, "reversed", decide)
    # The published code reads the `pred_text` of a merged row, which is that of the forward order.
    headline = _judged(row, parser, "forward", decide)
    return Prediction(line, headline, forward, back, scores, probabilities)


def _judged(row: Record, parser: str, shown: str, decide: str) -> Judged:
    """The outcome of a row, or of one order of a merged row; `shown` is the order of its `pred_text`."""
    text = row.get("pred_text")
    if not isinstance(text, str):
        raise InputError("the field 'pred_text' is missing or no string; every row needs it")
    status = row.get("status")
    if status is not None and status not in verdicts.STATUSES:
        raise InputError(f"status is {status!r}; it is one of {', '.join(verdicts.STATUSES)}")
    winner: int | None
    if decide != "winner":
        winner = None if status in ("unparsed", "overflow") else _decided(row, decide)
    elif parser == "tolerant" and status is not None and "winner" in row:
        winner = None if row["winner"] is None else _winner(row["winner"])
    else:
        winner = _parsed_winner(text, parser, shown)
    if winner is not None:
        return Judged("truncated" if status == "truncated" else "ok", winner)
    return Judged("overflow" if status == "overflow" else "unparsed", None)


def _decided(row: Record, decide: str) -> int:
    """The winner by mean or mode of the distribution over scores."""
    field = "expected_scores" if decide == "mean" else "scores"
    if "expected_scores" not in row:
        raise InputError(f"--decide={decide} needs 'expected_scores', which `judgelm-judge --mode=distribution` writes")
    scores = _pair_of_numbers(row.get(field))
    if scores is None:
        raise InputError(f"{field} is {row.get(field)!r}; it is a list of two numbers")
    return score_lines.winner_of(scores)


def _own_scores(row: Record, shown: str, parser: str) -> tuple[float, float] | None:
    for field in ("expected_scores", "scores"):
        if row.get(field) is not None:
            if (scores := _pair_of_numbers(row[field])) is None:
                raise InputError(f"{field} is no list of two numbers; judge the record again")
            return scores
    text = row.get("pred_text")
    if parser != "tolerant" or not isinstance(text, str) or (parsed := score_lines.parse_scores(text, 2)) is None:
        return None
    return (parsed[1], parsed[0]) if shown == "reversed" else (parsed[0], parsed[1])


def _probabilities(row: Record) -> tuple[float, float, float] | None:
    """First wins, tie, second wins."""
    values = row.get("probabilities")
    if values is None:
        return None
    if not isinstance(values, dict) or any(type(values.get(name)) not in (int, float) for name in ("1", "0", "2")):
        raise InputError("probabilities is no object with the numbers '1', '0' and '2'; judge the record again")
    first, tie, second = (float(values[name]) for name in ("1", "0", "2"))
    if min(first, tie, second) < 0 or abs(first + tie + second - 1) > 1e-6:
        raise InputError(f"the probabilities {first}, {tie}, {second} are negative or do not sum to 1; judge the record again")
    return first, tie, second


def _pair_of_numbers(value: object) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2 or any(type(item) not in (int, float) for item in value):
        return None
    return float(value[0]), float(value[1])


def _parsed_winner(text: str, parser: str, shown: str) -> int | None:
    """The winner in the record's own order."""
    scores = score_lines.parse_scores_upstream(text) if parser == "upstream" else score_lines.parse_scores(text, 2)
    if scores is None or scores == [-1, -1]:
        return None
    winner = score_lines.winner_of(scores)
    return winner if shown == "forward" else _SHOWN_REVERSED[winner]


def _winner(value: object) -> int:
    number = number_as_int(value)
    if number not in (0, 1, 2):
        raise InputError(f"winner is {value!r}; for a pair it is 1, 2 or 0 for a tie")
    return number
