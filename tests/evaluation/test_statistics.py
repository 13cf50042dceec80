"""Intervals against hand formulas, brute force and their own promise: how often they hold the truth."""

import math

import numpy as np
import pytest

from judgelm_jax.evaluation.statistics import RESAMPLES, absolute_interval, bootstrap_interval, wilson_interval


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (7, 10), (10, 10), (697, 999), (1, 1)])
def test_wilson_interval_is_the_formula(successes: int, total: int) -> None:
    z, share = 1.959963984540054, successes / total
    middle = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    assert wilson_interval(successes, total) == pytest.approx((middle - half, middle + half), abs=1e-12)


def test_nothing_counted_gives_no_interval() -> None:
    assert wilson_interval(0, 0) is None
    assert bootstrap_interval(np.zeros(3, dtype=int), lambda draws: draws[:, 0]) is None
    assert absolute_interval(None) is None


def test_the_bootstrap_over_counts_equals_resampling_the_records() -> None:
    counts = np.array([[40, 10], [20, 30]])

    def share_of_first_row_hits(draws: np.ndarray) -> np.ndarray:
        return draws[:, 0, 0] / np.maximum(draws[:, 0].sum(axis=1), 1)

    records = np.repeat(np.arange(4), counts.ravel())
    generator = np.random.default_rng(3)
    by_hand = []
    for _ in range(RESAMPLES):
        drawn = np.bincount(generator.choice(records, size=len(records)), minlength=4)
        by_hand.append(drawn[0] / (drawn[0] + drawn[1]))
    expected = np.quantile(by_hand, [0.025, 0.975])
    assert bootstrap_interval(counts, share_of_first_row_hits) == pytest.approx(expected, abs=0.015)


def test_the_same_seed_gives_the_same_interval() -> None:
    counts, weights = np.array([50, 30, 20]), np.array([0.1, 0.217, 0.893])
    first, again, other = (bootstrap_interval(counts, lambda draws: draws @ weights, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("truth", [(0.6, 0.25, 0.15), (0.7, 0.15, 0.15)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(truth: tuple[float, float, float]) -> None:
    """400 simulated evaluations of 300 pairs; at 95 % a rate below 0.92 has a chance of less than 1 %."""
    generator = np.random.default_rng(0)
    held = {"proportion": 0, "difference": 0}
    for _ in range(400):
        counts = generator.multinomial(300, truth)
        low, high = wilson_interval(int(counts[0]), 300) or (1, 0)
        held["proportion"] += low <= truth[0] <= high
        signed = bootstrap_interval(counts, lambda draws: (draws[:, 1] - draws[:, 2]) / 300)
        low, high = absolute_interval(signed) or (1, 0)
        held["difference"] += low <= truth[1] - truth[2] <= high
    assert all(count / 400 > 0.92 for count in held.values()), held
    assert held["proportion"] < 400


def test_the_interval_of_an_absolute_value_folds_at_zero() -> None:
    assert absolute_interval((0.1, 0.3)) == (0.1, 0.3)
    assert absolute_interval((-0.3, -0.1)) == (0.1, 0.3)
    assert absolute_interval((-0.2, 0.1)) == (0.0, 0.2)
