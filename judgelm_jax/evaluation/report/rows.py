"""What the page's browser of records shows of each judgment. Texts are data: they are cut, never changed."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from judgelm_jax.evaluation.joining import Joined, Prediction
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import answers_of, identity

LONGEST_TEXT = 20_000  # characters
FILTERS = ("disagrees", "inconsistent", "unparsed", "overflow", "truncated", "close call")

Best = int | frozenset[int]

_CLOSE_SCORES = 1.0
_CLOSE_PROBABILITY = 0.6


@dataclasses.dataclass(frozen=True)
class Row:
    """One record of the browser. Lists are in the record's own order; `marks` are of `FILTERS`.

    `orders`: the winner and the scores of each order that was shown. `fields`: scalar fields of the record to filter by.
    """

    id: str
    question: str
    answers: list[str]
    models: list[str | None]
    reference: str | None
    label: int | None
    winner: int | None
    scores: list[float | None] | None
    probabilities: list[float] | None
    orders: dict[str, dict[str, Any]]
    explanation: str
    marks: list[str]
    fields: dict[str, str]


def browser_rows(judgments: Sequence[Record], joined: Joined) -> list[Row]:
    """One row for each judgment, in their order. `joined` holds the verdicts as `evaluate` counts them."""
    predictions = dict(zip(joined.keys, joined.predictions, strict=True))
    predictions |= zip(joined.unlabelled_keys, joined.unlabelled_predictions, strict=True)
    labels: Mapping[str, int] = {} if joined.labels is None else dict(zip(joined.keys, joined.labels, strict=True))
    return [_row(record, predictions.get(identity(record)), labels.get(identity(record))) for record in judgments]


def cut(text: str) -> str:
    """A text of at most `LONGEST_TEXT` characters, with a notice where it was longer."""
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[:LONGEST_TEXT]}\n[{len(text) - LONGEST_TEXT:,} more characters are left out of the report]"


def _row(record: Record, prediction: Prediction | None, label: int | None) -> Row:
    """Judgment files come from anywhere: what is not of its type is shown as the JSON that it is, or not at all."""
    answers = answers_of(record)
    reference = record.get("reference")
    if isinstance(reference, dict) and "text" in reference:
        reference = reference["text"]
    winner = prediction.headline.winner if prediction is not None else _whole(record.get("winner"))
    orders = _orders(record, prediction)
    return Row(
        id=identity(record),
        question=cut(_text(record.get("question_body"))),
        answers=[cut(_text(answer)) for answer in answers],
        models=[_name(record.get(f"answer{number}_model_id")) for number in range(1, len(answers) + 1)],
        reference=None if reference is None else cut(_text(reference)),
        label=label,
        winner=winner,
        scores=_numbers(record.get("expected_scores")) or _numbers(record.get("scores")),
        probabilities=_probabilities(record, len(answers)),
        orders=orders,
        explanation=cut(_text(record.get("explanation") or record.get("pred_text"))),
        marks=_marks(record, prediction, label, winner, [best_of(order) for order in orders.values()]),
        fields=_fields(record),
    )


def _marks(
    record: Record, prediction: Prediction | None, label: int | None, winner: int | None, best: Sequence[Best | None]
) -> list[str]:
    """`best`: of each order that was shown, see `best_of`."""
    status = prediction.headline.status if prediction is not None else record.get("status")
    holds = {
        "disagrees": label is not None and winner != label,
        "inconsistent": None not in best and len(set(best)) > 1,
        "unparsed": status == "unparsed",
        "overflow": status == "overflow",
        "truncated": status == "truncated",
        "close call": is_close(record),
    }
    return [mark for mark in FILTERS if holds[mark]]


def best_of(order: Mapping[str, Any]) -> Best | None:
    """The winner of one of a row's `orders`; where several of more than two answers share the best score, which these are."""
    scores = order["scores"]
    if order["winner"] != 0 or scores is None or len(scores) < 3 or None in scores:
        return order["winner"]
    return frozenset(number for number, score in enumerate(scores, start=1) if score == max(scores))


def is_close(record: Record) -> bool:
    """The judge hardly prefers either: by its probabilities, else by its scores. A tie that it is sure of is not close."""
    probabilities = _probabilities(record, len(answers_of(record)))
    if probabilities is not None:
        return max(probabilities) < _CLOSE_PROBABILITY
    scores = [score for score in _numbers(record.get("scores")) or [] if score is not None]
    if len(scores) < 2:
        return False
    best, second = sorted(scores, reverse=True)[:2]
    return 0 < best - second < _CLOSE_SCORES


def _orders(record: Record, prediction: Prediction | None) -> dict[str, dict[str, Any]]:
    """Winner, scores and text of each order that was shown, by its name; the winner as `evaluate` counts it."""
    arrangements = record.get("arrangements")
    shown = {name: record.get(name) for name in ("forward", "reversed")}
    if isinstance(arrangements, list):
        shown |= {f"order {number}{_shown_as(order)}": order for number, order in enumerate(arrangements, start=1)}
    orders = {name: order for name, order in shown.items() if isinstance(order, dict)}
    if not orders and prediction is not None:
        orders = {"forward" if prediction.forward is not None else "reversed": record}
    shown_orders = {
        name: {
            "winner": _whole(order.get("winner")),
            "scores": _numbers(order.get("scores")),
            "text": cut(_text(order.get("pred_text"))),
        }
        for name, order in orders.items()
    }
    for name, judged in (("forward", prediction.forward), ("reversed", prediction.reversed)) if prediction is not None else ():
        if judged is not None:  # of a second file there is the winner only
            shown_orders[name] = {"scores": None, "text": ""} | shown_orders.get(name, {}) | {"winner": judged.winner}
    return shown_orders


def _shown_as(arrangement: Any) -> str:
    """The numbers of the answers as they were shown, in brackets; empty where the row does not say."""
    numbers = arrangement.get("order") if isinstance(arrangement, dict) else None
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        return ""
    return f" ({', '.join(map(str, numbers))})"


def _probabilities(record: Record, answers: int) -> list[float] | None:
    """P(sole best) of each answer, then of a shared best."""
    values = record.get("probabilities")
    if not isinstance(values, dict):
        return None
    found = [values.get(str(number), 0.0) for number in [*range(1, answers + 1), 0]]
    return found if all(type(value) in (int, float) for value in found) else None


def _numbers(values: Any) -> list[float | None] | None:
    """A list of numbers, some of which may be missing; None for anything else."""
    if not isinstance(values, list) or not all(value is None or type(value) in (int, float) for value in values):
        return None
    return values


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _fields(record: Record) -> dict[str, str]:
    """Short scalar fields that are no text and no verdict, to group and filter by."""
    return {
        name: str(value)
        for name, value in record.items()
        if isinstance(value, str | int | float | bool) and name not in _OWN_FIELDS and len(str(value)) <= 60
    }


_VERDICT_FIELDS = (
    "winner", "status", "explanation", "finish", "consistent", "order", "entropy", "covered_mass", "position_bias",
    "soft_score", "pred_text", "pred_id", "pred_model_id", "tstamp",
)  # fmt: skip
_OWN_FIELDS = {"question_id", "pair_id", "question_body", *_VERDICT_FIELDS} | {
    f"answer{number}_{what}" for number in range(1, 100) for what in ("body", "model_id")
}


def _name(value: Any) -> str | None:
    return None if value is None else _text(value)
