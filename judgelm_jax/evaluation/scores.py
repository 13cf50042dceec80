"""Scores beside winners: rank correlation with the teacher's scores, and the pull of longer answers."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from judgelm_jax.evaluation.joining import Joined
from judgelm_jax.evaluation.outcomes import Summary, outcome, share
from judgelm_jax.evaluation.statistics import Interval, difference_interval, percentile_levels

_DRAWS = 400


def score_correlation(joined: Joined) -> Summary:
    """How the judge's scores follow the teacher's: of the gap between the two answers, and of single answers.

    `gap_spearman`, `gap_kendall` (tau-b) of first minus second; `score_spearman`, `score_kendall` over all answers; with
    intervals by question, drawn anew. Empty where fewer than three records have both.
    """
    rows = [
        (teacher, row.scores, cluster)
        for teacher, row, cluster in zip(joined.teacher_scores, joined.predictions, joined.clusters(), strict=False)
        if teacher is not None and row.scores is not None
    ]
    if len(rows) < 3:
        return {}
    teacher, judge = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])  # [N, 2]
    clusters = [row[2] for row in rows]
    summary: Summary = {"records": len(rows)}
    summary |= _correlations("gap", teacher[:, :1] - teacher[:, 1:], judge[:, :1] - judge[:, 1:], clusters)
    return summary | _correlations("score", teacher, judge, clusters)


def length_bias(joined: Joined, policy: str) -> Summary:
    """How often the longer answer (in characters) wins, among decided verdicts; with labels what they say of it.

    `longer_wins`: of the verdicts that name a winner; `longer_wins_in_labels`: of the labels that do; `length_bias`: the
    judge's minus the labels', on records where both name one. Empty where answers are not beside the judgments.
    """
    rows = []
    clusters = joined.clusters()
    for number, row in enumerate(joined.predictions):
        if row.facts.lengths is not None and row.facts.lengths[0] != row.facts.lengths[1]:
            longer = 1 if row.facts.lengths[0] > row.facts.lengths[1] else 2
            label = joined.labels[number] if joined.labels is not None else 0
            said = outcome(row.headline, policy)
            rows.append((said == longer if said in (1, 2) else None, label == longer if label else None, clusters[number]))
    if not rows:
        return {}
    decided = [(judge, cluster) for judge, _, cluster in rows if judge is not None]
    summary = share("longer_wins", [judge for judge, _ in decided], [cluster for _, cluster in decided])
    if joined.labels is None:
        return summary
    labelled = [(label, cluster) for _, label, cluster in rows if label is not None]
    summary |= share("longer_wins_in_labels", [label for label, _ in labelled], [cluster for _, cluster in labelled])
    both = [(float(judge) - float(label), cluster) for judge, label, cluster in rows if judge is not None and label is not None]
    steps = [step for step, _ in both]
    ends = difference_interval(steps, [cluster for _, cluster in both])
    return summary | {"length_bias": float(np.mean(steps)) if steps else None, "length_bias_interval": ends}


def _correlations(name: str, teacher: np.ndarray, judge: np.ndarray, clusters: Sequence[Hashable]) -> Summary:
    from scipy.stats import kendalltau, spearmanr

    summary: Summary = {}
    for kind, function in (("spearman", spearmanr), ("kendall", kendalltau)):

        def correlation(chosen: np.ndarray, function: Callable = function) -> float:
            one, other = teacher[chosen].ravel(), judge[chosen].ravel()
            return float(function(one, other).statistic) if np.ptp(one) and np.ptp(other) else float("nan")

        value = correlation(np.arange(len(teacher)))
        ends = None if np.isnan(value) else _resampled(correlation, value, clusters)
        summary |= {f"{name}_{kind}": None if np.isnan(value) else value, f"{name}_{kind}_interval": ends}
    return summary


def _resampled(statistic: Callable[[np.ndarray], float], own: float, clusters: Sequence[Hashable]) -> Interval:
    """The percentile interval of drawing whole questions anew."""
    members: dict[Hashable, list[int]] = {}
    for index, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(index)
    questions = [np.array(indices) for indices in members.values()]
    generator = np.random.default_rng(0)
    values = []
    for _ in range(_DRAWS if len(questions) > 2 else 0):
        value = statistic(
            np.concatenate([questions[index] for index in generator.integers(len(questions), size=len(questions))])
        )
        if not np.isnan(value):
            values.append(value)
    if len(values) < _DRAWS / 2 or np.ptp(values) == 0:
        return -1.0, 1.0  # too few different questions to say anything
    low, high = np.quantile(values, percentile_levels(len(questions)))
    return min(own, float(low)), max(own, float(high))
