"""Agreement beyond chance: Cohen's and Fleiss' kappa, Krippendorff's alpha, and the alternative-annotator test.

All take outcomes as small whole numbers. Statistics that take sums `[R, ...]` give one value for each of R (re)samples, so that
`statistics.bootstrap_interval` can draw them by question.
"""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np

from judgelm_jax.evaluation.statistics import cluster_sums

# What a judge may lose to the annotator whom it replaces, for what a person costs more (Calderon et al. 2025, section 3): 0.2
# where people are experts, 0.15 skilled, 0.1 crowd workers.
EPSILON = 0.15
_FALSE_DISCOVERIES = 0.05
_FEWEST = 30  # records of one annotator; below, the test's normal approximation does not hold


@dataclasses.dataclass(frozen=True)
class AlternativeTest:
    """`winning_rate`: the share of annotators whom the judge may replace; it passes from one half on.

    `advantage`: by annotator, the share of records on which the judge agrees with the others at least as well as this annotator
    does. `p`: by annotator; None where there are fewer than 30 records.
    """

    winning_rate: float | None
    passes: bool | None
    advantage: list[float | None]
    p: list[float | None]
    epsilon: float


def cohen_kappa(matrices: np.ndarray) -> np.ndarray:
    """Cohen's kappa `[R]` of confusion counts `[R, K, K']`, K' ≥ K: further columns are verdicts that no label has.

    (p_o - p_e) / (1 - p_e) (Cohen 1960); nan where one outcome is all there is.
    """
    totals = matrices.sum(axis=(1, 2))
    outcomes = matrices.shape[1]
    observed = np.trace(matrices[:, :, :outcomes], axis1=1, axis2=2) / totals
    expected = (matrices.sum(axis=2) * matrices.sum(axis=1)[:, :outcomes]).sum(axis=1) / totals**2
    return _beyond_chance(observed, expected)


def fleiss_table(votes: np.ndarray) -> np.ndarray:
    """What `fleiss_kappa` needs of each record `[N, 2 + K]`, of numbers of votes `[N, K]`, the same number for each record."""
    votes = np.asarray(votes, np.float64)
    raters = votes.sum(axis=1)
    if len(votes) and (np.ptp(raters) or raters[0] < 2):
        raise ValueError("every record needs the same number of votes, at least two")
    same = ((votes * (votes - 1)).sum(axis=1) / (raters * (raters - 1)))[:, None]
    return np.concatenate([same, np.ones_like(same), votes / raters[:, None]], axis=1)


def fleiss_kappa(sums: np.ndarray) -> np.ndarray:
    """Fleiss' kappa `[R]` (1971) of sums `[R, 2 + K]` over records, see `fleiss_table`; nan with one outcome only."""
    records = sums[:, 1]
    return _beyond_chance(sums[:, 0] / records, ((sums[:, 2:] / records[:, None]) ** 2).sum(axis=1))


def coincidences(votes: np.ndarray) -> np.ndarray:
    """Krippendorff's coincidences of each record `[N, K, K]`, of numbers of votes `[N, K]`.

    A record with fewer than two votes has none.
    """
    votes = np.asarray(votes, np.float64)
    raters = votes.sum(axis=1)
    pairs = votes[:, :, None] * votes[:, None, :] - votes[:, :, None] * np.eye(votes.shape[1])
    return pairs / np.maximum(raters - 1, 1)[:, None, None]


def krippendorff_alpha(sums: np.ndarray, values: Sequence[float] | None = None) -> np.ndarray:
    """Krippendorff's alpha `[R]` of sums of coincidences `[R, K, K]`.

    Nominal: any two outcomes differ by 1; with `values` (one an outcome) by the square of their difference (interval data). nan
    where one outcome is all there is. Source: Krippendorff, Content Analysis (2004), chapter 11.
    """
    numbers = None if values is None else np.asarray(values, np.float64)
    distances = 1 - np.eye(sums.shape[1]) if numbers is None else (numbers[:, None] - numbers[None, :]) ** 2
    totals = sums.sum(axis=2)  # [R, K]
    count = totals.sum(axis=1)
    observed = (sums * distances).sum(axis=(1, 2)) / count
    by_chance = totals[:, :, None] * totals[:, None, :] - totals[:, :, None] * np.eye(sums.shape[1])
    expected = (by_chance * distances).sum(axis=(1, 2)) / (count * np.maximum(count - 1, 1e-12))
    return 1 - np.divide(observed, expected, out=np.full_like(observed, np.nan), where=expected > 0)


def alternative_test(
    judge: Sequence[int | None],
    people: Sequence[Sequence[int | None]],
    clusters: Sequence[Hashable],
    epsilon: float = EPSILON,
) -> AlternativeTest:
    """May the judge replace the annotators? (arXiv 2501.10970)

    Each annotator in turn is left out. On each record that they and another one judged, it is asked who agrees with the others
    better, the judge or the one left out (both, where equally well). The judge wins over the annotator if the annotator's
    share is larger by less than `epsilon`, beyond chance: a one-sided t-test, here with the variance between questions; the p
    of all annotators are corrected by Benjamini and Yekutieli's procedure at 5 %.

    Args:
      judge: its outcome for each record, None without one.
      people: for each record the annotators' outcomes, in the same order, None where one said nothing.
      clusters: the question of each record.
      epsilon: see `EPSILON`.
    """
    advantage: list[float | None] = []
    values: list[float | None] = []
    for left_out in range(max((len(votes) for votes in people), default=0)):
        steps, counted, at_least = [], [], 0
        for said, votes, cluster in zip(judge, people, clusters, strict=True):
            own = votes[left_out] if left_out < len(votes) else None
            others = [vote for place, vote in enumerate(votes) if place != left_out and vote is not None]
            if own is None or not others:
                continue
            by_judge, by_person = others.count(said) if said is not None else 0, others.count(own)
            at_least += by_judge >= by_person
            steps.append(float(by_person >= by_judge) - float(by_judge >= by_person))
            counted.append(cluster)
        advantage.append(at_least / len(steps) if steps else None)
        values.append(_p_of_less(steps, counted, epsilon) if len(steps) >= _FEWEST else None)
    tested = [p for p in values if p is not None]
    rate = sum(benjamini_yekutieli(tested)) / len(tested) if tested else None
    return AlternativeTest(rate, None if rate is None else rate >= 0.5, advantage, values, epsilon)


def benjamini_yekutieli(values: Sequence[float], level: float = _FALSE_DISCOVERIES) -> list[bool]:
    """Which of the p values are rejected so that at most `level` of the rejected ones are false, dependent or not (2001)."""
    number = len(values)
    harmonic = sum(1 / rank for rank in range(1, number + 1))
    order = np.argsort(values, kind="stable")
    below = [rank for rank in range(1, number + 1) if values[order[rank - 1]] <= rank * level / (number * harmonic)]
    rejected = set(order[: max(below, default=0)].tolist())
    return [place in rejected for place in range(number)]


def _p_of_less(steps: Sequence[float], clusters: Sequence[Hashable], bound: float) -> float:
    """The one-sided p of a mean not below `bound`."""
    from scipy.stats import t

    sums = cluster_sums(np.stack([np.asarray(steps), np.ones(len(steps))], axis=1), clusters)
    mean = sums[:, 0].sum() / sums[:, 1].sum()
    if len(sums) < 2:
        return 1.0
    squares = ((sums[:, 0] - mean * sums[:, 1]) ** 2).sum()
    error = np.sqrt(squares * len(sums) / (len(sums) - 1)) / sums[:, 1].sum()
    if error == 0:
        return 0.0 if mean < bound else 1.0
    return float(t.cdf((mean - bound) / error, len(sums) - 1))


def _beyond_chance(observed: np.ndarray, expected: np.ndarray) -> np.ndarray:
    possible = 1 - expected
    return np.divide(observed - expected, possible, out=np.full_like(observed, np.nan), where=possible > 1e-12)
