"""Every metric of joined files: agreement with labels, consistency and biases, each with an interval by question."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

from judgelm_jax.evaluation.joining import Joined, Judged
from judgelm_jax.evaluation.outcomes import Clusters, Summary, outcome, policy_of, share
from judgelm_jax.evaluation.position_bias import order_metrics
from judgelm_jax.evaluation.statistics import (
    Interval,
    bootstrap_intervals,
    cluster_sums,
    design_effect,
    edge_of,
    effective_count,
    share_interval,
)
from judgelm_jax.verdicts import verdicts

OUTCOMES: tuple[int | None, ...] = (1, 2, 0, None)  # columns of a confusion matrix; its rows are the first three

_ENOUGH_FOR_RARE_OUTCOMES = 300  # an outcome of 1 % is missed in 5 % of the samples of this size


def summarize(joined: Joined, *, parser: str, unparsed: str) -> Summary:
    """Every metric of the joined files, in the form of `evaluate --json`, without baselines, wins and groups.

    Args:
      joined: labels beside predictions, or predictions alone; then there is no agreement.
      parser: with `upstream` a judgment that does not parse is a tie, as in the published numbers; `unparsed` is then ignored.
      unparsed: what a judgment without a winner counts as. `wrong`: it agrees with no label and is consistent with nothing;
        `exclude`: it does not count; `tie`.

    Fractions are None where nothing counts. `total` is the number of records behind `agreement`, `pairs` that behind the
    consistency and the biases, `clusters` the number of questions behind `total`.
    """
    policy = policy_of(parser, unparsed)
    rows, clusters = joined.predictions, joined.clusters()
    headline = [row.headline for row in rows]
    summary: Summary = {"parser": parser, "unparsed_policy": policy}
    if joined.labels is not None:
        summary |= _label_metrics(joined.labels, headline, clusters, policy)
    forward = [row.forward for row in rows if row.forward is not None]
    back = [row.reversed for row in rows if row.reversed is not None]
    if forward and back:
        if joined.labels is not None:
            for name, single in (("agreement_forward", forward), ("agreement_reversed", back)):
                summary |= share(name, *agreement_hits(joined.labels, single, clusters, policy))
        summary |= order_metrics(forward, back, clusters, policy)
        summary["unparsed_reversed"] = sum(judged.winner is None for judged in back)
    counted = [cluster for cluster, judged in zip(clusters, headline, strict=True) if outcome(judged, policy) != "excluded"]
    statuses = Counter(judged.status for judged in headline)
    summary |= {"total": len(counted), "clusters": len(set(counted))}
    summary |= {status: statuses[status] for status in verdicts.STATUSES}
    return summary | {
        "labels_dropped": joined.labels_dropped,
        "labels_out_of_range": joined.labels_out_of_range,
        "missing": joined.missing,
        "unlabelled": joined.unlabelled,
    }


def confusion(labels: Sequence[int], judged: Sequence[Judged], policy: str) -> np.ndarray:
    """Counts `[3, 4]`: rows are the labels first, second, tie; columns the verdicts first, second, tie, none."""
    return cells(labels, judged, policy).sum(axis=0)


def cells(labels: Sequence[int], judged: Sequence[Judged], policy: str) -> np.ndarray:
    """Which cell of the confusion matrix each record belongs to: `[N, 3, 4]`, one 1 each; none where it does not count."""
    marks = np.zeros((len(labels), 3, 4), np.int64)
    for number, (label, verdict) in enumerate(zip(labels, judged, strict=True)):
        winner = outcome(verdict, policy)
        if winner != "excluded":
            marks[number, OUTCOMES.index(label), OUTCOMES.index(winner)] = 1
    return marks


def macro_precision(matrices: np.ndarray) -> np.ndarray:
    """Macro precision `[R]` of confusion counts or weights `[R, 3, 4]`.

    This and the next two take the mean over the outcomes that occur among labels or verdicts, and count 0/0 as 0, as
    scikit-learn does.
    """
    hits, _, predicted = _margins(matrices)
    return _mean_over_occurring(_ratio(hits, predicted), matrices)


def macro_recall(matrices: np.ndarray) -> np.ndarray:
    """Macro recall `[R]` of confusion counts `[R, 3, 4]`; see `macro_precision`."""
    hits, actual, _ = _margins(matrices)
    return _mean_over_occurring(_ratio(hits, actual), matrices)


def macro_f1(matrices: np.ndarray) -> np.ndarray:
    """Macro F1 `[R]` of confusion counts `[R, 3, 4]`; see `macro_precision`."""
    hits, actual, predicted = _margins(matrices)
    return _mean_over_occurring(_ratio(2 * hits, actual + predicted), matrices)


MACRO_SCORES = (("precision", macro_precision), ("recall", macro_recall), ("f1", macro_f1))


def _margins(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, labels and verdicts of each outcome, all `[R, 3]`."""
    return np.diagonal(matrices[:, :, :3], axis1=1, axis2=2), matrices.sum(axis=2), matrices[:, :, :3].sum(axis=1)


def _ratio(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    return np.divide(parts, wholes, out=np.zeros(wholes.shape), where=wholes > 0)


def _mean_over_occurring(values: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    _, actual, predicted = _margins(matrices)
    return values.sum(axis=1) / np.maximum((actual + predicted > 0).sum(axis=1), 1)  # [R]


def macro_intervals(table: np.ndarray) -> dict[str, Interval | None]:
    """The interval of each macro score of confusion counts by question `[G, 3, 4]`.

    For each outcome that occurs one pseudo-question with that label is wrong at the lower end, in equal parts for each other
    outcome, and one is right at the upper end. An outcome that did not occur may still exist: among fewer than 300 questions
    one of a hundred records can be missed. Then the lower end counts it with a score of 0, as a single wrong verdict would.
    """
    wrong, right, edges = pseudo_questions(table)
    occurring = outcomes_of(table)
    scores = [statistic for _, statistic in MACRO_SCORES]
    intervals: Sequence[Interval | None] | None
    if len(occurring) == 1:  # then every macro score is the share of hits
        hits, sizes = table[:, occurring[0], occurring[0]], table.sum(axis=(1, 2))
        intervals = [share_interval(hits, sizes)] * len(scores)
    else:
        intervals = bootstrap_intervals(scores, table, worst=wrong, best=right, edges=edges)
    seen = 1.0 if len(table) >= _ENOUGH_FOR_RARE_OUTCOMES else len(occurring) / 3
    return {
        name: None if interval is None else (interval[0] * seen, interval[1])
        for (name, _), interval in zip(MACRO_SCORES, intervals or [None] * len(scores), strict=True)
    }


def pseudo_questions(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For `bootstrap_interval` of confusion counts by question `[G, 3, 4]`.

    A wrong and a right pseudo-question for each outcome that occurs, `[J, 3, 4]`, and how near each is to its edge, `[J]`.
    """
    occurring = outcomes_of(table)
    size = table.sum() / max(len(table), 1)  # records a question
    wrong, right = np.zeros((len(occurring), 3, 4)), np.zeros((len(occurring), 3, 4))
    edges = np.zeros(len(occurring))
    for place, number in enumerate(occurring):
        others = [other for other in occurring if other != number] or [number]
        wrong[place, number, others] = size / len(others)
        right[place, number, number] = size
        hits = table[:, number, number]
        misses = table[:, number].sum(axis=1) - hits
        edges[place] = edge_of(min(effective_count(hits), effective_count(misses)))
    return wrong, right, edges


def outcomes_of(table: np.ndarray) -> list[int]:
    """Which of first, second, tie (0, 1, 2) occur among labels or verdicts of `[G, 3, 4]`."""
    return [number for number in range(3) if table[:, number].any() or table[:, :, number].any()]


def agreement_hits(
    labels: Sequence[int], judged: Sequence[Judged], clusters: Clusters, policy: str
) -> tuple[np.ndarray, list[Hashable]]:
    """Whether each record that counts agrees with its label, and its cluster."""
    rows = [
        (outcome(verdict, policy) == label, cluster)
        for label, verdict, cluster in zip(labels, judged, clusters, strict=True)
        if outcome(verdict, policy) != "excluded"
    ]
    return np.array([hit for hit, _ in rows], np.float64), [cluster for _, cluster in rows]


def _label_metrics(labels: Sequence[int], judged: Sequence[Judged], clusters: Clusters, policy: str) -> Summary:
    marks = cells(labels, judged, policy)
    matrix = marks.sum(axis=0)
    hits, counted = agreement_hits(labels, judged, clusters, policy)
    summary = share("agreement", hits, counted)
    table = cluster_sums(marks, clusters) if len(marks) else np.zeros((0, 3, 4))
    table = table[table.sum(axis=(1, 2)) > 0]
    intervals = macro_intervals(table)
    for name, statistic in MACRO_SCORES:
        value = float(statistic(matrix[None])[0]) if matrix.sum() else None
        summary |= {name: value, f"{name}_interval": intervals[name]}
    verdict_names = [*map(str, OUTCOMES[:3]), "none"]
    summary["confusion"] = {
        str(OUTCOMES[row]): dict(zip(verdict_names, map(int, matrix[row]), strict=True)) for row in range(3)
    }
    return summary | {"design_effect": design_effect(hits, counted)}
