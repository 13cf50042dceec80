import dataclasses
import itertools

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from judgelm_jax.errors import InputError
from judgelm_jax.prompts.arrangements import FORWARD
from judgelm_jax.verdicts import distributions


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1:10:1", ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10")),
        ("0:2:0.5", ("0", "0.5", "1", "1.5", "2")),
        ("1:2:0.3", ("1", "1.3", "1.6", "1.9")),
    ],
)
def test_a_grid_is_written_as_a_judge_writes_scores(text, values):
    assert distributions.grid(text) == values


WRONG_GRIDS = ["", "1:10", "1:10:0", "10:1:1", "0:11:1", "-1:5:1", "1:1:1", "a:b:c", "0:10:0.1", "nan:10:1", "1:10:inf"]


@pytest.mark.parametrize("text", WRONG_GRIDS)
def test_a_wrong_grid_is_refused(text):
    with pytest.raises(InputError, match="score_grid"):
        distributions.grid(text)


@given(data=st.data(), order=st.integers(1, 4).flatmap(lambda count: st.permutations(range(1, count + 1))))
def test_everything_agrees_with_a_loop_over_lines(data, order):
    values, order = ("1", "5.5", "10"), tuple(order)
    logs = data.draw(hnp.arrays(np.float32, 3 ** len(order), elements=st.floats(-60, -3, width=32)))
    made = distributions.from_log_probabilities(logs, values, order)
    count = made.probabilities.ndim
    wins, expected, weights = dict.fromkeys(map(str, range(count + 1)), 0.0), np.zeros(count), []
    mass = np.exp(logs.astype(np.float64))
    for line, weight in zip(itertools.product(map(float, values), repeat=count), mass / mass.sum(), strict=True):
        scores = [line[order.index(number)] for number in range(1, count + 1)]
        best = [k for k, score in enumerate(scores) if score == max(scores)]
        wins[str(best[0] + 1) if len(best) == 1 else "0"] += weight
        expected += weight * np.array(scores)
        weights.append(weight)
    assert made.covered_mass == pytest.approx(mass.sum())
    assert made.outcomes() == pytest.approx(wins)
    assert made.expected_scores() == pytest.approx(expected.tolist())
    assert made.entropy() == pytest.approx(scipy.stats.entropy(weights), abs=1e-9)


def test_the_mass_of_an_untrained_model_is_not_rounded_away():
    made = distributions.from_log_probabilities(np.full(4, -700.0), ("1", "2"), FORWARD)
    assert made.covered_mass == pytest.approx(4 * np.exp(-700.0))
    assert made.outcomes() == pytest.approx({"0": 0.5, "1": 0.25, "2": 0.25})
    assert made.winner() == 0


def test_equally_likely_winners_are_a_tie():
    made = distributions.from_log_probabilities(np.log([1e-9, 0.5, 0.5, 1e-9]), ("1", "2"), FORWARD)
    assert made.winner() == 0


@given(data=st.data(), order=st.integers(2, 4).flatmap(lambda count: st.permutations(range(1, count + 1))))
def test_independent_scores_agree_with_a_loop_over_lines(data, order):
    values, order = ("1", "5.5", "10"), tuple(order)
    logs = data.draw(hnp.arrays(np.float32, (len(order), 3), elements=st.floats(-30, -1, width=32)))
    made = distributions.from_log_probabilities(logs, values, order)
    mass = np.exp(logs.astype(np.float64))
    shown = mass / mass.sum(axis=1, keepdims=True)
    wins, expected, entropy = dict.fromkeys(map(str, range(len(order) + 1)), 0.0), np.zeros(len(order)), 0.0
    for places in itertools.product(range(3), repeat=len(order)):
        weight = np.prod([shown[position, place] for position, place in enumerate(places)])
        scores = [float(values[places[order.index(number)]]) for number in range(1, len(order) + 1)]
        best = [k for k, score in enumerate(scores) if score == max(scores)]
        wins[str(best[0] + 1) if len(best) == 1 else "0"] += weight
        expected += weight * np.array(scores)
        entropy -= weight * np.log(weight)
    assert made.outcomes() == pytest.approx(wins, abs=1e-12)
    assert made.expected_scores() == pytest.approx(expected.tolist())
    assert made.entropy() == pytest.approx(entropy, abs=1e-9)
    assert made.covered_mass == pytest.approx(mass.sum(axis=1).prod())
    merged = distributions.mean([made, dataclasses.replace(made, probabilities=made.probabilities[:, ::-1])])
    assert merged.expected_scores() == pytest.approx([5.5] * len(order))
