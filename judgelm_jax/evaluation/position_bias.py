"""Whether verdicts follow the position: consistency and bias over both orders of two answers; the best of several answers."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from judgelm_jax.evaluation.joining import Judged
from judgelm_jax.evaluation.outcomes import Clusters, Summary, outcome, share
from judgelm_jax.evaluation.statistics import magnitude_interval
from judgelm_jax.prompts.arrangements import as_shown
from judgelm_jax.records.json_lines import Record


@dataclasses.dataclass(frozen=True)
class OrderCounts:
    """Pairs by what happened when the answers were shown in the other order.

    `first`: the answer shown first fared better in both orders than its quality explains (a better outcome when shown first);
    `second`: the same for the answer shown second; `undecided`: a verdict is missing in at least one order.
    """

    same: int
    first: int
    second: int
    undecided: int

    def pairs(self) -> int:
        """All that count."""
        return self.same + self.first + self.second + self.undecided

    def follow_position(self) -> bool:
        """Nearly all verdicts go with the position: no fair judge does so, and its verdicts say nothing of the answers."""
        return follow_position(self.first, self.second, self.pairs())


def follow_position(first: float, second: float, pairs: int) -> bool:
    """Whether one position is preferred in nearly all of at least 20 pairs; `first`, `second` in how many each is."""
    return pairs >= 20 and max(first, second) >= 0.8 * pairs


def count_orders(forward: Sequence[Judged], back: Sequence[Judged], policy: str) -> OrderCounts:
    """Compares the winners of both orders, which are in the record's own order; see `order_changes`."""
    counts = Counter(order_changes(forward, back, policy))
    return OrderCounts(counts["same"], counts["first"], counts["second"], counts["undecided"])


def order_changes(forward: Sequence[Judged], back: Sequence[Judged], policy: str) -> list[str]:
    """`same`, `first`, `second`, `undecided` or `excluded` for each pair; one that did not fit the context is excluded.

    The answer shown second is preferred where the record's first answer fares worse shown first than shown second.
    """
    worth: dict[int | str | None, int] = {1: 1, 0: 0, 2: -1}  # of a verdict to the record's first answer
    changes = []
    for one, other in zip(forward, back, strict=True):
        shown_first, shown_second = (worth.get(outcome(judged, policy)) for judged in (one, other))
        if shown_first is None or shown_second is None:
            unseen = "overflow" in (one.status, other.status)  # the judge never saw the pair
            changes.append("excluded" if unseen or policy == "exclude" else "undecided")
            continue
        changes.append("same" if shown_first == shown_second else "first" if shown_first > shown_second else "second")
    return changes


def order_metrics(forward: Sequence[Judged], back: Sequence[Judged], clusters: Clusters, policy: str) -> Summary:
    """Consistency and the biases, each with its interval, and how many pairs count."""
    rows = [
        (change, cluster)
        for change, cluster in zip(order_changes(forward, back, policy), clusters, strict=True)
        if change != "excluded"
    ]
    changes, counted = [change for change, _ in rows], [cluster for _, cluster in rows]
    signs = np.array([(change == "first") - (change == "second") for change in changes], np.float64)
    return {
        **share("consistency", [change == "same" for change in changes], counted),
        **share("bias_first", [change == "first" for change in changes], counted),
        **share("bias_second", [change == "second" for change in changes], counted),
        "delta_bias": abs(int(signs.sum())) / len(rows) if rows else None,
        "delta_bias_interval": magnitude_interval(signs, counted),
        **share("total_bias", [change in ("first", "second") for change in changes], counted),
        "pairs": len(rows),
    }


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
        """As `OrderCounts.follow_position`."""
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
