"""Calibration against scikit-learn, a known distortion, and arithmetic by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss
from sklearn.metrics import log_loss as sklearn_log_loss

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation import calibration
from judgelm_jax.evaluation.calibration import Calibration, apply, fit, read_calibration, scale, winners


def honest(seed: int, records: int) -> tuple[np.ndarray, list[int]]:
    """Probabilities `[N, 3]` of first, tie, second, and labels drawn from them."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet([0.8, 0.3, 0.8], records)
    columns = [int(generator.choice(3, p=row)) for row in probabilities]
    return probabilities, [(1, 0, 2)[column] for column in columns]


@pytest.mark.parametrize("distortion", [0.4, 1.0, 2.5])
def test_a_known_distortion_is_found(distortion: float) -> None:
    probabilities, labels = honest(0, 8000)
    fitted = fit(scale(probabilities, 1 / distortion), labels)
    assert fitted.temperature == pytest.approx(distortion, rel=0.06)


def test_the_figures_are_those_of_scikit_learn() -> None:
    probabilities, labels = honest(1, 500)
    columns = np.array([(1, 0, 2).index(label) for label in labels])
    figures = calibration.measure(probabilities, labels, list(range(500)), Calibration(1.0, None))
    assert figures["log_loss"] == pytest.approx(sklearn_log_loss(columns, probabilities, labels=[0, 1, 2]), abs=1e-9)
    single = sum(brier_score_loss(columns == number, probabilities[:, number]) for number in range(3))
    assert figures["brier"] == pytest.approx(single, abs=1e-12)
    assert sum(row["records"] for row in figures["reliability"]) == 500
    low, high = figures["brier_interval"]
    assert low < figures["brier"] < high


def test_reliability_and_its_error_by_hand() -> None:
    table = calibration.reliability(np.array([0.95, 0.91, 0.62, 1.0]), np.array([True, False, True, True]))
    assert [(row["from"], row["records"], row["probability"], row["right"]) for row in table] == [
        (0.6, 1, pytest.approx(0.62), 1.0),
        (0.9, 3, pytest.approx(2.86 / 3), pytest.approx(2 / 3)),
    ]
    assert calibration.expected_calibration_error(table) == pytest.approx((0.38 + 0.86) / 4)


@pytest.mark.parametrize("seed", range(5))
def test_the_calibration_error_is_that_of_scikit_learn_s_bins(seed: int) -> None:
    random = np.random.default_rng(seed)
    sure = random.uniform(1 / 3, 1, 300)
    right = random.random(300) < sure**2
    table = calibration.reliability(sure, right)
    shares, means = calibration_curve(right, sure, n_bins=10, strategy="uniform")
    assert [row["right"] for row in table] == pytest.approx(shares)
    assert [row["probability"] for row in table] == pytest.approx(means)
    sizes = np.histogram(sure, bins=10, range=(0, 1))[0]
    expected = (np.abs(shares - means) * sizes[sizes > 0]).sum() / 300
    assert calibration.expected_calibration_error(table) == pytest.approx(expected)


def test_honest_probabilities_have_a_small_error_and_distorted_ones_a_larger() -> None:
    probabilities, labels = honest(2, 6000)
    good = calibration.measure(probabilities, labels, list(range(6000)), Calibration(1.0, None))
    bad = calibration.measure(scale(probabilities, 0.4), labels, list(range(6000)), Calibration(1.0, None))
    assert good["ece"] < 0.02 < 0.08 < bad["ece"]
    assert bad["log_loss"] > good["log_loss"]


def test_ties_that_the_judge_never_names_are_found_by_the_threshold() -> None:
    generator = np.random.default_rng(3)
    first = generator.random(2000)
    probabilities = np.stack([first, np.zeros(2000), 1 - first], axis=1)
    labels = [0 if abs(2 * value - 1) < 0.3 else 1 if value > 0.5 else 2 for value in first]
    fitted = fit(probabilities, labels)
    assert fitted.tie_threshold is not None
    right = winners(scale(probabilities, fitted.temperature), fitted.tie_threshold) == np.array(labels)
    assert right.mean() > 0.995


THREE = st.tuples(*[st.floats(0.001, 1)] * 3)


@given(THREE, st.floats(0.2, 5), st.one_of(st.none(), st.floats(0, 1)))
def test_a_judgment_keeps_its_text_and_exchanging_answers_exchanges_the_verdict(
    values: tuple, temperature: float, tie: float
) -> None:
    total = sum(values)
    first, none, second = (value / total for value in values)
    one = {"probabilities": {"1": first, "0": none, "2": second}, "winner": 1, "scores": [8, 7], "pred_text": "8 7"}
    other = {**one, "probabilities": {"1": second, "0": none, "2": first}}
    chosen = Calibration(temperature, tie)
    before = json.dumps(one)
    left, right = apply(one, chosen), apply(other, chosen)
    assert json.dumps(one) == before
    assert (left["scores"], left["pred_text"], left["calibrated"]) == ([8, 7], "8 7", True)
    assert sum(left["probabilities"].values()) == pytest.approx(1)
    assert left["probabilities"]["1"] == pytest.approx(right["probabilities"]["2"])
    assert {1: 2, 2: 1, 0: 0}[left["winner"]] == right["winner"]


def test_both_orders_are_calibrated_and_consistency_follows() -> None:
    one = {"probabilities": {"1": 0.48, "0": 0.1, "2": 0.42}, "winner": 1}
    other = {"probabilities": {"1": 0.42, "0": 0.1, "2": 0.48}, "winner": 2}
    merged = {"probabilities": {"1": 0.45, "0": 0.1, "2": 0.45}, "winner": 0, "order": "both", "consistent": False}
    row = apply({**merged, "forward": one, "reversed": other}, Calibration(1.0, 0.2))
    assert (row["forward"]["winner"], row["reversed"]["winner"], row["winner"], row["consistent"]) == (0, 0, 0, True)


def test_a_judgment_without_probabilities_is_refused_and_one_without_a_winner_left_alone() -> None:
    lost = {"winner": None, "status": "overflow"}
    assert apply(lost, Calibration(2.0, None)) is lost
    with pytest.raises(InputError, match="mode=distribution"):
        apply({"winner": 1}, Calibration(2.0, None))


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"temperature": 0}', '{"temperature": true}', '{"temperature": 1, "tie_threshold": 2}']
)
def test_a_file_that_is_no_calibration_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"calibration\.json"):
        read_calibration(path)
    path.write_text('{"temperature": 2, "tie_threshold": null}')
    assert read_calibration(path) == Calibration(2.0, None)
