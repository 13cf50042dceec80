"""Strengths against evalica, choix and statsmodels; intervals by simulation and against Jeffreys' interval."""

import itertools

import choix
import evalica
import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import beta

from judgelm_jax.evaluation.ranking import bradley_terry
from judgelm_jax.evaluation.ranking.bradley_terry import fit

STRENGTHS = np.array([0.6, 0.1, -0.2, -0.5])
_WINNER = {1.0: evalica.Winner.X, 0.0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}


def compared(questions, seed, ties=0.1, spread=0.0):
    """Every two of four models on every question; `spread` makes the comparisons of a question dependent."""
    rng = np.random.default_rng(seed)
    rows = []
    for question in range(questions):
        quality = STRENGTHS + rng.normal(0, spread, 4)
        for one, other in itertools.combinations(range(4), 2):
            chance = 1 / (1 + np.exp(quality[other] - quality[one]))
            rows.append((one, other, 0.5 if rng.random() < ties else float(rng.random() < chance), question))
    first, second, result, clusters = map(np.array, zip(*rows, strict=True))
    return first, second, result, clusters


def centred(values):
    return np.asarray(values) - np.mean(values)


def test_strengths_with_ties_are_those_of_evalica():
    first, second, result, clusters = compared(100, 0)
    theirs = evalica.bradley_terry(list(map(str, first)), list(map(str, second)), [_WINNER[value] for value in result])
    ours = fit(first, second, result, clusters, 4)
    np.testing.assert_allclose(ours.strengths, centred(np.log(theirs.scores.sort_index())), atol=1e-5)
    assert not ours.bounded


def test_strengths_without_ties_are_those_of_choix():
    first, second, result, clusters = compared(100, 1, ties=0)
    pairs = [(one, other) if won else (other, one) for one, other, won in zip(first, second, result, strict=True)]
    theirs = choix.opt_pairwise(4, pairs, tol=1e-12)
    np.testing.assert_allclose(fit(first, second, result, clusters, 4).strengths, centred(theirs), atol=1e-6)


def test_strengths_and_effects_are_those_of_a_logistic_regression():
    first, second, result, clusters = compared(150, 2)
    covariates = np.random.default_rng(3).normal(size=(len(first), 2))
    design = np.zeros((len(first), 4))
    design[np.arange(len(first)), first], design[np.arange(len(first)), second] = 1, -1
    theirs = sm.GLM(result, np.column_stack([design[:, 1:], covariates]), family=sm.families.Binomial()).fit(tol=1e-12)
    ours = fit(first, second, result, clusters, 4, covariates)
    np.testing.assert_allclose(ours.strengths, centred([0, *theirs.params[:3]]), atol=1e-6)
    np.testing.assert_allclose(ours.effects, theirs.params[3:], atol=1e-6)


def test_independent_draws_have_the_standard_errors_of_a_logistic_regression():
    first, second, result, _ = compared(400, 4, ties=0)
    design = np.zeros((len(first), 4))
    design[np.arange(len(first)), first], design[np.arange(len(first)), second] = 1, -1
    theirs = sm.GLM(result, design[:, 1:], family=sm.families.Binomial()).fit()
    ours = fit(first, second, result, np.arange(len(first)), 4)
    differences = ours.strength_draws[:, 1:] - ours.strength_draws[:, :1]
    np.testing.assert_allclose(differences.std(axis=0), theirs.bse, rtol=0.06)  # 2,000 draws: 1.6 % noise


@pytest.mark.parametrize(("won", "played"), [(0, 12), (12, 12), (1, 30), (17, 30)])
def test_two_models_have_the_interval_of_jeffreys(won, played):
    first, second = np.zeros(played, int), np.ones(played, int)
    result = (np.arange(played) < won).astype(float)
    found = fit(first, second, result, np.arange(played), 2)
    rates = 1 / (1 + np.exp(found.strength_draws[:, 1] - found.strength_draws[:, 0]))
    expected = beta(won + 0.5, played - won + 0.5).ppf([0.1, 0.5, 0.9])
    np.testing.assert_allclose(np.quantile(rates, [0.1, 0.5, 0.9]), expected, atol=0.02)
    assert found.bounded == (won in (0, played))
    assert np.isfinite(found.strengths).all()


def test_repeating_every_comparison_of_a_question_tells_nothing_new():
    first, second, result, clusters = compared(40, 5)
    once = fit(first, second, result, clusters, 4)
    thrice = fit(*(np.repeat(values, 3) for values in (first, second, result, clusters)), 4)
    np.testing.assert_allclose(thrice.strengths, once.strengths, atol=1e-7)
    np.testing.assert_allclose(thrice.strength_draws.std(axis=0), once.strength_draws.std(axis=0), rtol=0.08)


@pytest.mark.slow
@pytest.mark.parametrize("questions", [20, 60])
def test_intervals_by_question_cover_where_comparisons_of_a_question_depend(questions, monkeypatch):
    """200 samples of four strengths each: the noise of the simulation is about one point."""
    monkeypatch.setattr(bradley_terry, "DRAWS", 2)
    truth = fit(*compared(10_000, 6, spread=0.8), 4).strengths
    monkeypatch.setattr(bradley_terry, "DRAWS", 500)
    covered, naive = [], []
    for seed in range(200):
        first, second, result, clusters = compared(questions, 1000 + seed, spread=0.8)
        for name, by in ((covered, clusters), (naive, np.arange(len(first)))):
            low, high = np.quantile(fit(first, second, result, by, 4, seed=seed).strength_draws, [0.025, 0.975], axis=0)
            name.append((low <= truth) & (truth <= high))
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.mean(naive) < np.mean(covered)  # pairs taken as independent: too narrow
