"""The choice of the step that is left as the model, against textbook intervals and simulated runs."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from judgelm_jax.training.choice import Choice, Measured, choose, ratio_interval


def measured(amounts, questions=None):
    amounts = np.asarray(amounts, np.float64)
    questions = np.arange(len(amounts)) if questions is None else np.asarray(questions)
    return Measured({"loss": 1.0}, amounts, np.ones(len(amounts)), questions)


def test_the_interval_is_students_where_records_are_independent():
    rng = np.random.default_rng(0)
    one, other = rng.normal(2.0, 1.0, 30), rng.normal(1.8, 1.0, 30)
    theirs = stats.ttest_rel(one, other).confidence_interval(0.95)
    np.testing.assert_allclose(ratio_interval(one - other, np.ones(30), np.arange(30)), theirs, rtol=1e-12)


def test_the_interval_is_that_of_the_means_of_equal_questions():
    rng = np.random.default_rng(1)
    differences = (rng.normal(0.1, 0.3, 12)[:, None] + rng.normal(0, 0.1, (12, 5))).ravel()
    theirs = stats.ttest_1samp(differences.reshape(12, 5).mean(1), 0.0).confidence_interval(0.95)
    own = ratio_interval(differences, np.ones(60), np.arange(60) // 5)
    np.testing.assert_allclose(own, theirs, rtol=1e-12)
    alone = ratio_interval(differences, np.ones(60), np.arange(60))
    assert alone[1] - alone[0] < 0.7 * (own[1] - own[0])  # records of a question taken for independent promise too much


def test_the_interval_covers_the_truth_where_targets_and_questions_are_uneven():
    rng = np.random.default_rng(2)
    questions = np.repeat(np.arange(40), rng.integers(1, 12, 40))
    covered = 0
    for _ in range(400):
        weights = rng.integers(20, 200, len(questions)).astype(float)
        effect = 0.05 + 0.1 * rng.standard_normal(40)[questions]  # nats a target, of each question
        low, high = ratio_interval(weights * effect + rng.normal(0, 5, len(questions)), weights, questions)
        covered += low <= 0.05 <= high
    assert 0.92 < covered / 400 < 0.98


def test_a_single_question_and_a_single_record():
    differences = np.array([0.1, -0.2, 0.3])
    own = ratio_interval(differences, np.ones(3), np.array([7, 7, 7]))
    np.testing.assert_allclose(own, stats.ttest_1samp(differences, 0.0).confidence_interval(0.95), rtol=1e-12)
    assert ratio_interval(np.array([0.1]), np.ones(1), np.array([7])) == (-math.inf, math.inf)


@pytest.mark.parametrize(("by", "sign"), [("loss", -1), ("agreement", 1)])
def test_an_improvement_inside_the_noise_is_none_and_a_clear_one_is(by, sign):
    rng = np.random.default_rng(3)
    before, noise = rng.uniform(0.3, 0.6, 40), rng.uniform(-0.1, 0.1, 40)
    noise -= noise.mean()
    choice = choose(None, 10, measured(before), by)
    assert (choice.step, choice.refused) == (10, "")
    assert "the first measured" in choice.why
    noisy = choose(choice, 20, measured(before + sign * 0.001 + noise), by)
    assert noisy.step == 10
    assert "of step 20 against it is inside the noise" in noisy.why
    clear = choose(noisy, 30, measured(before + sign * 0.2 + noise), by)
    assert clear.step == 30
    assert "against step 10" in clear.why
    worse = choose(clear, 40, measured(before - sign * 0.2), by)
    assert (worse.step, worse.figures) == (30, clear.figures)
    assert "is no improvement" in worse.why


def test_two_of_sixteen_do_not_beat_one():
    right = np.zeros(16)
    right[3] = 1
    choice = choose(None, 1, measured(right), "agreement")
    right[5] = 1
    assert choose(choice, 2, measured(right), "agreement").step == 1
    right[:12] = 1
    assert choose(choice, 3, measured(right), "agreement").step == 3


def test_small_improvements_add_up():
    """Each step is better than the one before by less than the noise; in time the run leaves its first choice."""
    rng = np.random.default_rng(4)
    start, choice, steps = rng.normal(3, 1, 50), None, []
    for step in range(1, 41):
        choice = choose(choice, step, measured(start - 0.03 * step + rng.normal(0, 0.3, 50)), "loss")
        steps.append(choice.step)
    assert len(set(steps)) >= 5
    assert steps[-1] >= 34
    assert steps == sorted(steps)


def test_noise_alone_seldom_changes_the_choice():
    rng = np.random.default_rng(5)
    questions = np.repeat(np.arange(20), 6)
    changed = 0
    for _ in range(400):
        start = rng.normal(3, 1, 120)
        own = rng.normal(0, 0.3, 20)[questions] + rng.normal(0, 0.3, 120)
        choice = choose(choose(None, 1, measured(start, questions), "loss"), 2, measured(start + own, questions), "loss")
        changed += choice.step == 2
    assert changed / 400 < 0.045  # 2.5 % are meant


def test_what_is_not_finite_is_never_chosen():
    bad, good = measured([1.0, math.nan]), measured([1.0, 2.0])
    assert choose(None, 1, bad, "loss") is None
    choice = choose(choose(None, 1, bad, "loss"), 2, good, "loss")
    assert choice.step == 2
    after = choose(choice, 3, measured([math.inf, 1.0]), "loss")
    assert after.step == 2
    assert "step 3 is not finite" in after.why


def test_a_choice_survives_json():
    rng = np.random.default_rng(6)
    choice = choose(None, 3, measured(rng.normal(size=20)), "loss")
    again = Choice.from_json(json.loads(json.dumps(choice.to_json())))
    assert again == choice
    later = measured(rng.normal(size=20))
    assert choose(again, 4, later, "loss") == choose(choice, 4, later, "loss")
