"""Intervals: Wilson for proportions, a multinomial bootstrap for what is computed from several counts."""

from collections.abc import Callable

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000

Interval = tuple[float, float]


def wilson_interval(successes: int, total: int) -> Interval | None:
    """The 95 % interval of a proportion (Wilson 1927); None where nothing was counted."""
    if total == 0:
        return None
    from scipy.stats import binomtest

    interval = binomtest(successes, total).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(counts: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0) -> Interval | None:
    """The 95 % percentile interval of a statistic of counts of exclusive outcomes (Efron 1979).

    Drawing records with replacement is drawing the counts from a multinomial distribution, so only counts are needed. Where all
    records fell into one cell the interval has no width.

    Args:
      counts: whole numbers of any shape, one for each outcome.
      statistic: from resampled counts `[RESAMPLES, *counts.shape]` to values `[RESAMPLES]`.
      seed: the same seed gives the same interval.

    Returns None where nothing was counted.
    """
    total = int(counts.sum())
    if total == 0:
        return None
    draws = np.random.default_rng(seed).multinomial(total, counts.ravel() / total, size=RESAMPLES)  # [R, cells]
    values = statistic(draws.reshape(RESAMPLES, *counts.shape))
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def absolute_interval(interval: Interval | None) -> Interval | None:
    """The interval of |x| from that of x. Resampling |x| itself would miss a true value near 0."""
    if interval is None:
        return None
    low, high = interval
    if low <= 0 <= high:
        return 0.0, max(-low, high) + 0.0  # no −0.0
    return min(abs(low), abs(high)), max(abs(low), abs(high))
