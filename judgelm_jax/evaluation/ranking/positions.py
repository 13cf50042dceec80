"""Whether verdicts on several answers follow the position: what is best in each of the arrangements that were shown."""

import dataclasses
from collections.abc import Iterable

from judgelm_jax.arrangements import as_shown
from judgelm_jax.evaluation.metrics import follow_position
from judgelm_jax.records import Record


@dataclasses.dataclass(frozen=True)
class PositionCounts:
    """Records of more than two answers that have scores in each of several arrangements.

    `same_answers`: the same answers are best in all of them. `same_position`: not so, for the best score stands at the same
    position, or positions, in all of them, whatever answer is shown there.
    """

    records: int
    same_answers: int
    same_position: int

    def follow_position(self) -> bool:
        """As `metrics.OrderCounts.follow_position`."""
        return follow_position(self.same_position, 0, self.records)


def count_positions(rows: Iterable[Record]) -> PositionCounts:
    """Counts judgments; those of other kinds, in one arrangement, or without all scores are left out."""
    same_answers = same_position = records = 0
    for row in rows:
        shown = _orders_and_scores(row)
        if len(shown) < 2:
            continue
        records += 1
        if len({_best(scores) for _, scores in shown}) == 1:
            same_answers += 1
        elif len({_best(as_shown(scores, order)) for order, scores in shown}) == 1:
            same_position += 1
    return PositionCounts(records, same_answers, same_position)


def _orders_and_scores(row: Record) -> list[tuple[tuple[int, ...], list[float]]]:
    """Of each arrangement its order, and the scores in the record's own order; nothing where one of them has none."""
    arrangements = row.get("arrangements")
    found = []
    for one in arrangements if isinstance(arrangements, list) else []:
        order, scores = (one.get("order"), one.get("scores")) if isinstance(one, dict) else (None, None)
        if not (isinstance(order, list) and isinstance(scores, list) and len(order) == len(scores) > 2):
            return []
        if not all(type(value) in (int, float) for value in [*order, *scores]):
            return []
        if sorted(order) != list(range(1, len(order) + 1)):
            return []
        found.append((tuple(order), scores))
    return found


def _best(scores: Iterable[float]) -> frozenset[int]:
    """The indices of the best score."""
    listed = list(scores)
    return frozenset(index for index, score in enumerate(listed) if score == max(listed))
