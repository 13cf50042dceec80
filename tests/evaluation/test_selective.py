"""Keeping only sure verdicts: the promise held by simulation, the test by hand."""

import numpy as np
import pytest
from scipy.stats import binom

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import Joined, Judged, Prediction
from judgelm_jax.evaluation.selective import keep_below, risk_summary


def error_at(sure: np.ndarray) -> np.ndarray:
    """The chance of an error at a sureness from 0 to 1."""
    return 0.5 * (1 - sure) ** 1.5


def risk_above(threshold: float) -> float:
    """The true share of errors among sureness at or above the threshold, by integration."""
    grid = np.linspace(threshold, 1, 2001)
    return float(error_at(grid).mean())


@pytest.mark.parametrize(("records", "each", "risk"), [(200, 1, 0.1), (1000, 1, 0.1), (600, 3, 0.15), (300, 1, 0.02)])
def test_the_verdicts_kept_are_wrong_too_often_in_at_most_one_sample_of_twenty(records: int, each: int, risk: float) -> None:
    generator = np.random.default_rng(0)
    broken = found = 0
    for _ in range(400):
        questions = np.repeat(np.arange(records // each), each)
        sure = generator.random(records // each)[questions]
        wrong = generator.random(records // each)[questions] < error_at(sure)
        kept = keep_below(sure, wrong.tolist(), questions.tolist(), risk)
        if kept is not None:
            found += 1
            broken += risk_above(kept[0]) > risk
    assert broken / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)
    if records == 1000:
        assert found == 400


def test_more_labels_keep_more() -> None:
    generator = np.random.default_rng(1)
    covered = []
    for records in (200, 1000, 20000):
        sure = generator.random(records)
        kept = keep_below(sure, generator.random(records) < error_at(sure), range(records), 0.1)
        covered.append(0.0 if kept is None else kept[1])
    assert covered == sorted(covered)
    assert covered[-1] == pytest.approx(0.6, abs=0.11)  # the true share is 0.63, in steps of a tenth


def test_the_test_is_an_exact_binomial_one() -> None:
    """All are as sure: the one threshold has a tenth of the 5 %."""
    for errors in range(8):
        wrong = [True] * errors + [False] * (100 - errors)
        kept = keep_below([0.5] * 100, wrong, range(100), 0.1)
        assert (kept is not None) == (binom.cdf(errors, 100, 0.1) <= 0.005)
    assert keep_below([], [], [], 0.1) is None


def prediction(
    winner: int | None, scores: tuple[float, float] | None, probabilities: tuple[float, float, float] | None
) -> Prediction:
    return Prediction(1, Judged("ok" if winner is not None else "unparsed", winner), None, None, scores, probabilities)


def test_the_signal_is_the_probability_of_the_winner_or_else_the_gap_of_scores() -> None:
    sure = [prediction(1, (9.0, 2.0), (0.9, 0.05, 0.05))] * 90 + [prediction(None, None, None)] * 10
    summary = risk_summary(Joined([1] * 100, sure, 0, 0, 0), "wrong", 0.1)
    assert (summary["signal"], summary["threshold"], summary["coverage"], summary["error"]) == ("probability", 0.9, 0.9, 0.0)
    gaps = [prediction(1, (9.0, 2.0), None)] * 100
    assert risk_summary(Joined([1] * 100, gaps, 0, 0, 0), "wrong", 0.1)["threshold"] == 7.0
    none = risk_summary(Joined([2] * 100, gaps, 0, 0, 0), "wrong", 0.1)
    assert (none["threshold"], none["coverage"], none["error"]) == (None, 0.0, None)
    with pytest.raises(InputError, match="mode=distribution"):
        risk_summary(Joined([1], [prediction(1, None, None)], 0, 0, 0), "wrong", 0.1)
    with pytest.raises(InputError, match="labels"):
        risk_summary(Joined(None, gaps, 0, 0, 0), "wrong", 0.1)
