"""The judge beside people: how well annotators agree among themselves, with the judge, and whether it may replace one."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations

import numpy as np

from judgelm_jax.evaluation.agreement import (
    alternative_test,
    cohen_kappa,
    coincidences,
    fleiss_kappa,
    fleiss_table,
    krippendorff_alpha,
)
from judgelm_jax.evaluation.joining import Joined
from judgelm_jax.evaluation.metrics import cells, pseudo_questions
from judgelm_jax.evaluation.outcomes import Summary, outcome, share
from judgelm_jax.evaluation.statistics import Interval, bootstrap_interval, cluster_sums

_OUTCOMES = (1, 2, 0)


def kappa(joined: Joined, policy: str) -> Summary:
    """Cohen's kappa of verdicts and labels, with its interval; a missing verdict is an outcome of its own."""
    if not joined.labels:
        return {}
    marks = cells(joined.labels, [row.headline for row in joined.predictions], policy)
    table = cluster_sums(marks, joined.clusters())
    table = table[table.sum(axis=(1, 2)) > 0]
    wrong, right, edges = pseudo_questions(table)
    return _figure("kappa", cohen_kappa, table, wrong, right, edges)


def with_people(joined: Joined, policy: str) -> Summary:
    """Where labels carry `annotators`: agreement of people among themselves and of the judge with them.

    `people_agreement`: the share of pairs of annotators that agree, mean over records; `judge_agreement`: the share of
    annotators with whom the judge agrees; on the same records. `fleiss_kappa` (where all records have as many votes) and
    `krippendorff_alpha` of people, `alpha_with_judge` with the judge as one more. `alternative_test` as in
    `agreement.alternative_test`. Empty where no record has two votes.
    """
    rows = [
        (votes, said, cluster)
        for votes, row, cluster in zip(joined.people, joined.predictions, joined.clusters(), strict=False)
        if votes is not None
        and sum(vote is not None for vote in votes) >= 2
        and (said := outcome(row.headline, policy)) != "excluded"
    ]
    if not rows:
        return {}
    votes, clusters = [row[0] for row in rows], [row[2] for row in rows]
    judge = [said if isinstance(said, int) else None for _, said, _ in rows]
    spoken = [[vote for vote in record if vote is not None] for record in votes]
    among = [float(np.mean([one == other for one, other in combinations(record, 2)])) for record in spoken]
    with_judge = [float(np.mean([said == vote for vote in record])) for said, record in zip(judge, spoken, strict=True)]
    counts = np.array([[record.count(number) for number in _OUTCOMES] for record in spoken], np.float64)
    summary: Summary = {"records": len(rows), "annotators": max(len(record) for record in votes)}
    summary |= share("people_agreement", among, clusters) | share("judge_agreement", with_judge, clusters)
    if np.ptp(counts.sum(axis=1)) == 0:
        summary |= _drawn("fleiss_kappa", fleiss_kappa, fleiss_table(counts), clusters, _fleiss_edges(counts))
    summary |= _alpha("krippendorff_alpha", counts, clusters)
    joined_counts = counts + np.array([[said == number for number in _OUTCOMES] for said in judge])
    summary |= _alpha("alpha_with_judge", joined_counts, clusters)
    return summary | {"alternative_test": dataclasses.asdict(alternative_test(judge, votes, clusters))}


def _alpha(name: str, counts: np.ndarray, clusters: Sequence[Hashable]) -> Summary:
    parts = coincidences(counts)
    occurring = np.flatnonzero(counts.sum(axis=0))
    unlike, alike = np.zeros((1, 3, 3)), np.zeros((1, 3, 3))
    size = parts.sum() / len(set(clusters))
    for number in occurring:
        alike[0, number, number] = size / len(occurring)
        unlike[0, number, occurring] = size / max(len(occurring) * (len(occurring) - 1), 1)
        unlike[0, number, number] = 0
    return _drawn(name, krippendorff_alpha, parts, clusters, (unlike, alike))


def _fleiss_edges(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A record on which nobody agrees with anybody, and one on which all do, outcomes as often as they occur."""
    often = counts.sum(axis=0) / counts.sum()
    return np.array([[0.0, 1.0, *often]]), np.array([[1.0, 1.0, *often]])


def _drawn(
    name: str,
    statistic: Callable[[np.ndarray], np.ndarray],
    parts: np.ndarray,
    clusters: Sequence[Hashable],
    ends: tuple[np.ndarray, np.ndarray],
) -> Summary:
    return _figure(name, statistic, cluster_sums(parts, clusters), *ends, None)


def _figure(
    name: str,
    statistic: Callable[[np.ndarray], np.ndarray],
    table: np.ndarray,
    worst: np.ndarray,
    best: np.ndarray,
    edges: np.ndarray | None,
) -> Summary:
    """The statistic of the sample and its interval; None where it does not exist, as with one outcome only."""
    value = float(statistic(table.sum(axis=0)[None])[0]) if len(table) else float("nan")
    interval: Interval | None = None
    if not np.isnan(value):
        interval = bootstrap_interval(lambda sums: np.nan_to_num(statistic(sums)), table, worst=worst, best=best, edges=edges)
    return {name: None if np.isnan(value) else value, f"{name}_interval": interval}
