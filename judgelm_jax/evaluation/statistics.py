"""Intervals by question: at 95 %, for records that share questions, and never of zero width on a sample.

Records of one question are not independent. Every function here takes, beside the values, the `clusters` of the records: any
labels, one a record, the same for records of the same question. Records that all have labels of their own are independent.

  proportion_interval(hits, clusters)        share of records: agreement, consistency, win rate (halves count, too)
  weighted_interval(hits, weights, clusters) the same with weights
  share_interval(hits, sizes)                the same, from hits and numbers of records by question
  mean_interval(values, clusters, bounds)    mean of values, such as scores from 0 to 10
  difference_interval(values, clusters)      mean of values from -1 to 1: two judges on the same records, first minus second
  magnitude_interval(values, clusters)       size of such a mean, without its sign
  bootstrap_interval(statistic, table, ...)  anything computed from sums over questions, such as F1 or a weighted mean
  cluster_sums(values, clusters)             sums by question, the `table` of the function before
  question_weights(questions, seed)          weights of resampled questions, for statistics that need more than sums

All return `(low, high)`, or None where nothing was counted. How often they hold the truth was simulated; the table is in
this folder's README (`coverage.py`).
"""

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000

_TAIL = (1 - CONFIDENCE) / 2
# Below about this many questions with the rarer outcome the variance between questions cannot be told from the data.
_FEW_FOR_VARIANCE = 6.0
# From about this many questions with the rarer outcome on, half a question is added against each end, not a whole one.
_FEW_FOR_EDGE = 10.0
_MOST_WEIGHTS = 4_000_000  # in memory at once

Interval = tuple[float, float]
Statistic = Callable[[np.ndarray], np.ndarray]


def cluster_sums(values: np.ndarray | Sequence[float], clusters: Sequence[Hashable]) -> np.ndarray:
    """Sums `[G, ...]` of values `[N, ...]` over the records of each of the G clusters, in the order of first appearance."""
    values = np.asarray(values, np.float64)
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values but {len(clusters)} clusters")
    places: dict[Hashable, int] = {}
    index = np.array([places.setdefault(cluster, len(places)) for cluster in clusters], np.int64)
    sums = np.zeros((len(places), *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums


def proportion_interval(hits: np.ndarray | Sequence[float], clusters: Sequence[Hashable]) -> Interval | None:
    """The interval of the share of hits (each from 0 to 1) over all records.

    A Beta interval with the effective number of records (Korn and Graubard 1998): the variance of the share is that of the
    questions' totals (the sandwich), divided into p(1 - p). Inside it is Jeffreys' interval; where few questions have the rarer
    outcome it becomes Clopper and Pearson's, and records of one question count as one.
    """
    sums = cluster_sums(np.stack([np.asarray(hits, np.float64), np.ones(len(hits))], axis=-1), clusters)
    return share_interval(sums[:, 0], sums[:, 1])


def weighted_interval(
    hits: np.ndarray | Sequence[float], weights: np.ndarray | Sequence[float], clusters: Sequence[Hashable]
) -> Interval | None:
    """As `proportion_interval`, of the weighted share; records of weight 0 do not count."""
    weights = np.asarray(weights, np.float64)
    total = float(weights.sum())
    if total == 0:
        return None
    scaled = weights * (total / float((weights**2).sum()))  # their sum is Kish's effective number of records
    sums = cluster_sums(np.stack([np.asarray(hits, np.float64) * scaled, scaled], axis=-1), clusters)
    sums = sums[sums[:, 1] > 0]
    return share_interval(sums[:, 0], sums[:, 1])


def share_interval(hits: np.ndarray, sizes: np.ndarray) -> Interval | None:
    """`proportion_interval` of hits and numbers of records by question, both `[G]`."""
    from scipy.stats import beta, norm

    records = float(sizes.sum())
    if records == 0:
        return None
    share = float(hits.sum() / records)
    effective = records
    if len(sizes) > 1 and 0 < share < 1:
        _, variance, freedom = _sandwich(hits, sizes)
        if variance > 0:
            narrowing = (norm.ppf(1 - _TAIL) / _student(freedom)) ** 2
            effective = min(share * (1 - share) / variance * narrowing, records)
    count = min(effective_count(hits), effective_count(sizes - hits))  # questions with the rarer outcome
    whole_questions = records**2 / float((sizes**2).sum())  # as if all records of a question had the same outcome
    doubt = float(np.exp(-((count / _FEW_FOR_VARIANCE) ** 2)))
    effective = 1 / ((1 - doubt) / effective + doubt / min(whole_questions, effective))
    added = (1 + edge_of(count)) / 2  # of a question, against each end
    for_, against = share * effective, (1 - share) * effective
    low = 0.0 if hits.sum() <= 0 else float(beta.ppf(_TAIL, for_ + 1 - added, against + added))
    high = 1.0 if (sizes - hits).sum() <= 0 else float(beta.ppf(1 - _TAIL, for_ + added, against + 1 - added))
    return min(low, share), max(high, share)


def mean_interval(
    values: np.ndarray | Sequence[float], clusters: Sequence[Hashable], bounds: tuple[float, float] = (0.0, 1.0)
) -> Interval | None:
    """The interval of the mean of values that lie in `bounds`.

    For shares (bounds 0 and 1) that of `proportion_interval`; else Student's interval with the variance between questions, and
    where all values are the same, or all of one question, the Beta interval on the bounds.
    """
    low, high = bounds
    scaled = (np.asarray(values, np.float64) - low) / (high - low)
    sums = cluster_sums(np.stack([scaled, np.ones(len(scaled))], axis=-1), clusters)
    ends = share_interval(sums[:, 0], sums[:, 1])
    if bounds != (0.0, 1.0) and len(sums) > 1 and np.ptp(scaled) > 0:
        mean, variance, freedom = _sandwich(sums[:, 0], sums[:, 1])
        half = _student(freedom) * np.sqrt(variance)
        if half > 0:
            ends = max(0.0, mean - half), min(1.0, mean + half)
    return None if ends is None else (low + ends[0] * (high - low), low + ends[1] * (high - low))


def difference_interval(
    values: np.ndarray | Sequence[float], clusters: Sequence[Hashable], confidence: float = CONFIDENCE, seed: int = 0
) -> Interval | None:
    """The interval of the mean of values from -1 to 1, such as the difference of two shares of the same records.

    At each end stands one more question that speaks against it (see `bootstrap_interval`).
    """
    values = np.asarray(values, np.float64)
    if len(values) == 0:
        return None
    sums = cluster_sums(np.stack([values, np.ones(len(values)), values > 0, values < 0], axis=-1), clusters)
    size = sums[:, 1].mean()
    edge = edge_of(min(effective_count(sums[:, 2]), effective_count(sums[:, 3])))
    return bootstrap_interval(
        lambda draws: draws[:, 0] / draws[:, 1],
        sums[:, :2],
        worst=np.array([[-size, size]]),
        best=np.array([[size, size]]),
        edges=np.array([edge]),
        confidence=confidence,
        seed=seed,
    )


def magnitude_interval(values: np.ndarray | Sequence[float], clusters: Sequence[Hashable], seed: int = 0) -> Interval | None:
    """The interval of the absolute value of the mean of values from -1 to 1.

    It begins at 0 where the interval of the mean holds 0. Just beyond, the truth can be missed at one side only, so all of the
    5 % is spent there: the lower end is the one-sided one, as long as it is not larger than half the interval's width.
    """
    both = difference_interval(values, clusters, seed=seed)
    if both is None:
        return None
    low, high = absolute_interval(both) or both
    if low == 0:
        return low, high
    one_sided = absolute_interval(difference_interval(values, clusters, confidence=1 - 4 * _TAIL, seed=seed)) or both
    return max(low, min(one_sided[0], high - abs(float(np.mean(values))))), high


def bootstrap_interval(
    statistic: Statistic,
    table: np.ndarray,
    *,
    worst: np.ndarray | None = None,
    best: np.ndarray | None = None,
    edges: np.ndarray | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval | None:
    """The interval of a statistic of sums over questions, by the Bayesian bootstrap over questions (Rubin 1981).

    Resampling cannot show what the sample does not hold: without a single error every resample is perfect. So the lower end
    is drawn with pseudo-questions that speak against the judge, the upper with such that speak for it. For a plain share this
    is exactly Clopper and Pearson's interval (each whole pseudo-question) or Jeffreys' (half of each). Percentiles are expanded
    for few questions (Hesterberg 2015). The statistic of the sample itself always lies inside.

    Several statistics of one table: `bootstrap_intervals`, which draws once for all.

    Args:
      statistic: from weighted sums `[R, K...]` to values `[R]`.
      table: `[G, K...]`, the sums of each question, as of `cluster_sums`.
      worst, best: `[J, K...]`, pseudo-questions; neither for a statistic without edges.
      edges: `[J]`, from 1 (each whole, see `edge_of`) to 0 (half of each).
      confidence: of the two-sided interval.
      seed: the same seed gives the same interval.

    Returns None where nothing was counted.
    """
    intervals = bootstrap_intervals([statistic], table, worst=worst, best=best, edges=edges, confidence=confidence, seed=seed)
    return None if intervals is None else intervals[0]


def bootstrap_intervals(
    statistics: Sequence[Statistic],
    table: np.ndarray,
    *,
    worst: np.ndarray | None = None,
    best: np.ndarray | None = None,
    edges: np.ndarray | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> list[Interval] | None:
    """`bootstrap_interval` of each statistic, from the same resamples."""
    table = np.asarray(table, np.float64)
    if table.sum() == 0 and not table.any():
        return None
    questions = len(table)
    flat = table.reshape(questions, -1)
    against = np.zeros((0, flat.shape[1])) if worst is None else np.asarray(worst, np.float64).reshape(len(worst), -1)
    in_favour = np.zeros((0, flat.shape[1])) if best is None else np.asarray(best, np.float64).reshape(len(best), -1)
    whole = (1 + (np.ones(len(against)) if edges is None else np.asarray(edges, np.float64))) / 2  # [J], from 1/2 to 1
    generator = np.random.default_rng([seed, 1])
    one = _gamma(generator, whole)  # [R, J]
    other = _gamma(generator, 1 - whole)
    sums = np.concatenate([weights @ flat for weights in _weight_blocks(questions, seed)])  # [R, K]
    lower = (sums + one @ against + other @ in_favour).reshape(RESAMPLES, *table.shape[1:])
    upper = (sums + one @ in_favour + other @ against).reshape(RESAMPLES, *table.shape[1:])
    below, above = percentile_levels(questions, confidence)
    intervals = []
    for statistic in statistics:
        own = float(statistic(table.sum(axis=0)[None])[0])
        low, high = np.quantile(statistic(lower), below), np.quantile(statistic(upper), above)
        intervals.append((min(own, float(low)), max(own, float(high))))
    return intervals


def percentile_levels(questions: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Which quantiles of resamples of that many questions are the ends of an interval: wider than 2.5 and 97.5 % for few."""
    from scipy.stats import norm

    wanted = 1 - (1 - confidence) / 2
    wide = norm.ppf(wanted) if questions < 2 else _student(questions - 1, wanted) * np.sqrt((questions + 1) / (questions - 1))
    return float(norm.cdf(-wide)), float(norm.cdf(wide))


def question_weights(questions: int, seed: int = 0) -> np.ndarray:
    """Weights `[RESAMPLES, questions]` of the Bayesian bootstrap over questions; each row has the mean 1 on average."""
    return np.concatenate(list(_weight_blocks(questions, seed)))


def edge_of(count: float) -> float:
    """How near a share lies to its edge: 1 where no question has the rarer outcome, 0 where many have."""
    return float(np.exp(-count / _FEW_FOR_EDGE))


def absolute_interval(interval: Interval | None) -> Interval | None:
    """The interval of |x| from that of x. Resampling |x| itself would miss a true value near 0."""
    if interval is None:
        return None
    low, high = interval
    if low <= 0 <= high:
        return 0.0, max(-low, high) + 0.0  # no −0.0
    return min(abs(low), abs(high)), max(abs(low), abs(high))


def design_effect(hits: np.ndarray | Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """By how much the variance of a share exceeds that of independent records; None where it cannot be told."""
    sums = cluster_sums(np.stack([np.asarray(hits, np.float64), np.ones(len(hits))], axis=-1), clusters)
    if len(sums) < 2:
        return None
    share, variance, _ = _sandwich(sums[:, 0], sums[:, 1])
    plain = share * (1 - share) / sums[:, 1].sum()
    return float(variance / plain) if plain > 0 else None


def _sandwich(sums: np.ndarray, sizes: np.ndarray) -> tuple[float, float, float]:
    """Mean over records, its variance between questions, and the degrees of freedom of that variance.

    The variance of a variance depends on the kurtosis; questions that are all right or all wrong know theirs almost exactly.
    """
    questions, records = len(sizes), float(sizes.sum())
    mean = float(sums.sum() / records)
    residuals = sums - mean * sizes  # [G]
    squares = float((residuals**2).mean())
    variance = squares * questions**2 / (questions - 1) / records**2
    kurtosis = float((residuals**4).mean()) / squares**2 - 3 if squares > 0 else 0.0
    spread = 2 / (questions - 1) + min(max(kurtosis, -2.0), 0.0) / questions
    return mean, variance, 2 / max(spread, 1e-9)


def _student(freedom: float, quantile: float = 1 - _TAIL) -> float:
    from scipy.stats import t

    return float(t.ppf(quantile, freedom))


def effective_count(amounts: np.ndarray) -> float:
    """How many questions hold the amounts (Kish): their number where all hold as much, less where few hold most."""
    squares = float((amounts**2).sum())
    return float(amounts.sum()) ** 2 / squares if squares > 0 else 0.0


def _weight_blocks(questions: int, seed: int) -> Iterator[np.ndarray]:
    """The rows of `question_weights` in blocks that fit memory."""
    if RESAMPLES * questions <= _MOST_WEIGHTS:
        yield _few_weights(questions, seed)
        return
    generator = np.random.default_rng([seed, 0])
    rows = max(1, _MOST_WEIGHTS // questions)
    for start in range(0, RESAMPLES, rows):
        yield generator.standard_exponential((min(rows, RESAMPLES - start), questions))


@functools.lru_cache(maxsize=2)  # a summary asks for the same ones several times
def _few_weights(questions: int, seed: int) -> np.ndarray:
    weights = np.random.default_rng([seed, 0]).standard_exponential((RESAMPLES, questions))
    weights.flags.writeable = False
    return weights


def _gamma(generator: np.random.Generator, shapes: np.ndarray) -> np.ndarray:
    """Draws `[RESAMPLES, J]`; of shape 0 it is 0."""
    return np.where(shapes > 0, generator.gamma(np.maximum(shapes, 1e-12), size=(RESAMPLES, len(shapes))), 0.0)
