"""Agreement with labels, and consistency and bias over the two orders, each with an interval."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from judgelm_jax import verdicts
from judgelm_jax.evaluation.joining import Joined, Judged
from judgelm_jax.evaluation.statistics import Interval, absolute_interval, bootstrap_interval, wilson_interval

UNPARSED_POLICIES = ("wrong", "exclude", "tie")

_OUTCOMES: tuple[int | None, ...] = (1, 2, 0, None)  # columns of a confusion matrix; its rows are the first three

Summary = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class OrderCounts:
    """Pairs by what happened when the answers changed places.

    `first`: the answer shown first fared better in both places than its quality explains (a better outcome when shown first);
    `second`: the same for the place shown second; `undecided`: a verdict is missing in at least one order.
    """

    same: int
    first: int
    second: int
    undecided: int


def summarize(joined: Joined, *, parser: str, unparsed: str) -> Summary:
    """Every metric of the joined files, in the form of `evaluate --json`.

    Args:
      joined: labels beside predictions.
      parser: with `upstream` a judgment that does not parse is a tie, as in the published numbers; `unparsed` is then ignored.
      unparsed: what a judgment without a winner counts as. `wrong`: it agrees with no label and is consistent with nothing;
        `exclude`: it does not count; `tie`.

    Fractions are None where nothing counts. `total` is the number of records behind `agreement`, `pairs` that behind the
    consistency and the biases.
    """
    policy = "tie" if parser == "upstream" else unparsed
    rows = joined.predictions
    matrix = confusion(joined.labels, [row.headline for row in rows], policy)
    summary: Summary = {"parser": parser, "unparsed_policy": policy}
    summary |= _proportion("agreement", int(np.trace(matrix)), int(matrix.sum()))
    for name, statistic in (("precision", macro_precision), ("recall", macro_recall), ("f1", macro_f1)):
        value = float(statistic(matrix[None])[0]) if matrix.sum() else None
        summary |= {name: value, f"{name}_interval": bootstrap_interval(matrix, statistic)}
    forward = [row.forward for row in rows if row.forward is not None]
    back = [row.reversed for row in rows if row.reversed is not None]
    if forward and back:
        for name, single in (("agreement_forward", forward), ("agreement_reversed", back)):
            single_matrix = confusion(joined.labels, single, policy)
            summary |= _proportion(name, int(np.trace(single_matrix)), int(single_matrix.sum()))
        summary |= _order_metrics(count_orders(forward, back, policy))
        summary["unparsed_reversed"] = sum(judged.winner is None for judged in back)
    statuses = Counter(row.headline.status for row in rows)
    summary["total"] = int(matrix.sum())
    summary |= {status: statuses[status] for status in verdicts.STATUSES}
    return summary | {
        "labels_dropped": joined.labels_dropped,
        "missing": joined.missing,
        "unlabelled": joined.unlabelled,
    }


def confusion(labels: Sequence[int], judged: Sequence[Judged], policy: str) -> np.ndarray:
    """Counts `[3, 4]`: rows are the labels first, second, tie; columns the verdicts first, second, tie, none."""
    matrix = np.zeros((3, 4), dtype=np.int64)
    for label, verdict in zip(labels, judged, strict=True):
        winner = 0 if verdict.winner is None and policy == "tie" else verdict.winner
        if winner is None and policy == "exclude":
            continue
        matrix[_OUTCOMES.index(label), _OUTCOMES.index(winner)] += 1
    return matrix


def macro_precision(matrices: np.ndarray) -> np.ndarray:
    """Macro precision `[R]` of confusion counts `[R, 3, 4]`.

    This and the next two take the mean over the outcomes that occur among labels or verdicts, and count 0/0 as 0, as
    scikit-learn does.
    """
    hits, _, predicted = _margins(matrices)
    return _mean_over_occurring(hits / np.maximum(predicted, 1), matrices)


def macro_recall(matrices: np.ndarray) -> np.ndarray:
    """Macro recall `[R]` of confusion counts `[R, 3, 4]`; see `macro_precision`."""
    hits, actual, _ = _margins(matrices)
    return _mean_over_occurring(hits / np.maximum(actual, 1), matrices)


def macro_f1(matrices: np.ndarray) -> np.ndarray:
    """Macro F1 `[R]` of confusion counts `[R, 3, 4]`; see `macro_precision`."""
    hits, actual, predicted = _margins(matrices)
    return _mean_over_occurring(2 * hits / np.maximum(actual + predicted, 1), matrices)


def _margins(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, labels and verdicts of each outcome, all `[R, 3]`."""
    return np.diagonal(matrices[:, :, :3], axis1=1, axis2=2), matrices.sum(axis=2), matrices[:, :, :3].sum(axis=1)


def _mean_over_occurring(values: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    _, actual, predicted = _margins(matrices)
    return values.sum(axis=1) / np.maximum((actual + predicted > 0).sum(axis=1), 1)  # [R]


def count_orders(forward: Sequence[Judged], back: Sequence[Judged], policy: str) -> OrderCounts:
    """Compares the winners of both orders, which are in the record's own order.

    The second place is preferred where the record's first answer fares worse when it is shown first than when it is shown
    second.
    """
    worth = {1: 1, 0: 0, 2: -1}  # of a verdict to the record's first answer
    counts: Counter[str] = Counter()
    for one, other in zip(forward, back, strict=True):
        pair = [0 if judged.winner is None and policy == "tie" else judged.winner for judged in (one, other)]
        if pair[0] is None or pair[1] is None:
            counts["excluded" if policy == "exclude" else "undecided"] += 1
            continue
        shown_first, shown_second = worth[pair[0]], worth[pair[1]]
        counts["same" if shown_first == shown_second else "first" if shown_first > shown_second else "second"] += 1
    return OrderCounts(counts["same"], counts["first"], counts["second"], counts["undecided"])


def metrics_table(summary: Summary) -> str:
    """The summary as aligned text for people: fractions with their intervals, then the counts."""
    lines = [f"{'metric':<20}{'value':>8}   95 % interval"]
    for name in summary:
        if f"{name}_interval" not in summary:
            continue
        value, interval = summary[name], summary[f"{name}_interval"]
        shown = "-" if value is None else f"{value:.4f}"
        between = "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"
        lines.append(f"{name:<20}{shown:>8}   {between}")
    lines += ["", f"parser {summary['parser']}; a judgment without a winner counts as: {summary['unparsed_policy']}"]
    counts = ("total", *verdicts.STATUSES, "labels_dropped", "missing", "unlabelled", "pairs", "unparsed_reversed")
    lines.append("   ".join(f"{name} {summary[name]}" for name in counts if name in summary))
    return "\n".join(lines)


def _order_metrics(counts: OrderCounts) -> Summary:
    pairs = counts.same + counts.first + counts.second + counts.undecided
    cells = np.array([counts.same, counts.first, counts.second, counts.undecided])
    difference: Interval | None = bootstrap_interval(cells, lambda draws: (draws[:, 1] - draws[:, 2]) / pairs)
    return {
        **_proportion("consistency", counts.same, pairs),
        **_proportion("bias_first", counts.first, pairs),
        **_proportion("bias_second", counts.second, pairs),
        "delta_bias": abs(counts.first - counts.second) / pairs if pairs else None,
        "delta_bias_interval": absolute_interval(difference),
        **_proportion("total_bias", counts.first + counts.second, pairs),
        "pairs": pairs,
    }


def _proportion(name: str, successes: int, total: int) -> Summary:
    return {name: successes / total if total else None, f"{name}_interval": wilson_interval(successes, total)}
