"""Judgments as comparisons of two models: who was compared, on which question, with which result."""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import Judged, read_predictions
from judgelm_jax.evaluation.position_bias import OrderCounts, count_orders
from judgelm_jax.records.conversations import replies_of
from judgelm_jax.records.json_lines import Record, plain_text, read_jsonl
from judgelm_jax.records.records import answers_of, identity


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on one question. `result` is 1 where `first` won, 0 where `second` won, 0.5 for a tie.

    `cluster` is the question; comparisons of one question are not independent. `texts` are the two answers.
    `group` is the value of the field that results are split by; None without one.
    """

    first: str
    second: str
    result: float
    cluster: str
    texts: tuple[str, str]
    group: str | None = None


@dataclasses.dataclass(frozen=True)
class Comparisons:
    """All comparisons of some judgment files, and how many judgments gave none: `undecided` have no verdict.

    `orders`: how the verdicts of pairs changed when the answers changed places, of those judged in both orders.
    """

    rows: list[Comparison]
    undecided: int
    orders: OrderCounts


def read_comparisons(
    paths: Sequence[Path],
    cluster: str = "question_id",
    by: str | None = None,
    *,
    parser: str = "tolerant",
    decide: str = "winner",
) -> Comparisons:
    """Reads judgment files. A judgment of N answers gives N (N - 1) / 2 comparisons, from its scores.

    Args:
      paths: judgments of pairs (by their `winner`) or of several answers (by their `scores`).
      cluster: the field whose equal values mark judgments that are not independent; a judgment without it is its own.
      by: a field to split by.
      parser, decide: how a judgment of a pair names its winner, see `read_predictions`. Several answers are compared by their
        `scores`, or with `decide="mean"` by their `expected_scores`.

    Raises:
      InputError: a row without the models' names, with the same model twice, with an answer that is no text, or without the
        field `by`; a file that is given twice, or has judgments of two and of more answers.
    """
    rows: list[Comparison] = []
    undecided = 0
    games: list[tuple[Judged, Judged]] = []
    for path in paths:
        if sum(path.resolve() == other.resolve() for other in paths) > 1:
            raise InputError(f"{path}: is given twice; each judgment counts once")
        counts = {len(_answers(row)) for _, row in read_jsonl(path)}
        if 2 in counts and len(counts) > 1:
            raise InputError(f"{path}: judgments of two answers and of {max(counts)} are mixed; give a file for each")
        pairs = read_predictions(path, parser, decide=decide) if counts == {2} else {}
        winners = {key: row.headline.winner for key, row in pairs.items()}
        games += [(row.forward, row.reversed) for row in pairs.values() if row.forward and row.reversed]
        lines: dict[str, int] = {}
        for line, row in read_jsonl(path):
            try:
                if (first_line := lines.setdefault(identity(row), line)) != line:
                    raise InputError(f"the id {identity(row)!r} is already in line {first_line}; each judgment counts once")
                results = list(_results(row, winners, decide))
                undecided += not results
                rows.extend(_comparison(row, first, second, result, cluster, by) for first, second, result in results)
            except InputError as error:
                raise InputError(f"{path}:{line}: {error}") from error
    return Comparisons(rows, undecided, count_orders([one for one, _ in games], [other for _, other in games], "wrong"))


def name_two_models(judgments: Iterable[Record]) -> bool:
    """Whether every judgment says whose answers it compares, and they are of two models or more."""
    found: set[str] = set()
    for row in judgments:
        names = [row.get(f"answer{number}_model_id") for number in range(1, 1 + len(_answers(row)))]
        if (
            len(names) < 2
            or len(set(map(str, names))) < len(names)
            or not all(isinstance(name, str) and name for name in names)
        ):
            return False
        found.update(map(str, names))
    return len(found) > 1


def _results(row: Record, winners: dict[str, int | None], decide: str) -> Iterator[tuple[int, int, float]]:
    """The numbers of two answers (from 1) and the result of the first of them, for every two answers of a judgment."""
    count = len(_answers(row))
    if count < 2:
        raise InputError(f"there are {count} answers (answer1_body, answer2_body, ...); a comparison needs two")
    if count == 2 and (key := identity(row)) in winners:
        winner = winners[key]
        if winner is not None:
            yield 1, 2, {1: 1.0, 2: 0.0, 0: 0.5}[winner]
        return
    if row.get("scores") is None:
        return
    if decide != "winner" and "expected_scores" not in row:
        raise InputError(f"--decide={decide} needs 'expected_scores', which `judgelm-judge --mode=distribution` writes")
    field = "expected_scores" if decide == "mean" else "scores"
    scores = row[field]
    if not (isinstance(scores, list) and len(scores) == count and all(map(_is_score, scores))):
        raise InputError(f"{field} is {scores!r}; it must be a list of {count} numbers")
    for first, second in itertools.combinations(range(count), 2):
        if scores[first] is not None and scores[second] is not None:
            difference = scores[first] - scores[second]
            yield first + 1, second + 1, 0.5 if difference == 0 else float(difference > 0)


def _answers(row: Record) -> list[str]:
    """The answers, or what the assistants of two chats said."""
    return answers_of(row) or replies_of(row)


def _is_score(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value))


def _comparison(row: Record, first: int, second: int, result: float, cluster: str, by: str | None) -> Comparison:
    names = [row.get(f"answer{number}_model_id") for number in (first, second)]
    for number, name in zip((first, second), names, strict=True):
        if not isinstance(name, str) or not name:
            raise InputError(
                f"answer{number}_model_id is missing or no text; a ranking needs the name of the model behind each answer "
                "(`judgelm-prepare` takes it from the field 'model' of the answers)"
            )
    if names[0] == names[1]:
        raise InputError(f"both answers are of the model {names[0]!r}; rename one of them, or leave the record out")
    if by is not None and by not in row:
        raise InputError(f"the field {by!r} is missing; every row needs it to be split by it")
    question = row.get(cluster)
    answers = _answers(row)
    if not all(isinstance(answer, str) for answer in answers):
        raise InputError("an answer is no text; make answer1_body, answer2_body and so on strings")
    return Comparison(
        str(names[0]),
        str(names[1]),
        result,
        identity(row) if question is None else plain_text(question),
        (answers[first - 1], answers[second - 1]),
        None if by is None else plain_text(row[by]),
    )
