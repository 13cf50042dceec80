"""Agreement beyond chance against scikit-learn, statsmodels, evalica and scipy."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import cohen_kappa_score

from judgelm_jax.evaluation.agreement import (
    alternative_test,
    benjamini_yekutieli,
    cohen_kappa,
    coincidences,
    fleiss_kappa,
    fleiss_table,
    krippendorff_alpha,
)


def raters(seed: int, records: int = 120, people: int = 4, outcomes: int = 3) -> np.ndarray:
    """Outcomes `[records, people]` of people who follow a common truth more or less."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, outcomes, records)
    follow = generator.random((records, people)) < generator.random(people)
    return np.where(follow, truth[:, None], generator.integers(0, outcomes, (records, people)))


def votes_of(said: np.ndarray, outcomes: int = 3) -> np.ndarray:
    return np.stack([(said == number).sum(axis=1) for number in range(outcomes)], axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_cohen_is_that_of_scikit_learn(seed: int) -> None:
    said = raters(seed, people=2)
    matrix = np.zeros((3, 4))
    np.add.at(matrix, (said[:, 0], said[:, 1]), 1)
    assert cohen_kappa(matrix[None])[0] == pytest.approx(cohen_kappa_score(said[:, 0], said[:, 1]), abs=1e-12)


def test_cohen_takes_a_missing_verdict_as_an_outcome_of_its_own() -> None:
    labels, verdicts = [0, 0, 1, 1, 2, 2, 2], [0, 3, 1, 0, 2, 3, 2]
    matrix = np.zeros((3, 4))
    np.add.at(matrix, (labels, verdicts), 1)
    assert cohen_kappa(matrix[None])[0] == pytest.approx(cohen_kappa_score(labels, verdicts), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_fleiss_is_that_of_statsmodels(seed: int) -> None:
    rater = pytest.importorskip("statsmodels.stats.inter_rater")
    votes = votes_of(raters(seed))
    expected = rater.fleiss_kappa(votes, method="fleiss")
    assert fleiss_kappa(fleiss_table(votes).sum(axis=0)[None])[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("distance", ["nominal", "interval"])
def test_alpha_is_that_of_evalica_with_votes_missing(seed: int, distance: str) -> None:
    evalica = pytest.importorskip("evalica")
    pandas = pytest.importorskip("pandas")
    said = raters(seed).astype(float)
    said[np.random.default_rng(seed).random(said.shape) < 0.3] = np.nan
    expected = evalica.alpha(pandas.DataFrame(said.T), distance=distance).alpha
    ours = krippendorff_alpha(coincidences(votes_of(said)).sum(axis=0)[None], None if distance == "nominal" else [0, 1, 2])[0]
    assert ours == pytest.approx(expected, abs=1e-9)


def test_alpha_of_krippendorff_s_own_example() -> None:
    """Content Analysis (2004), figure 11.1: nominal 0.743, interval 0.849."""
    table = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    votes = np.array([[[row[unit] for row in table].count(value) for value in range(1, 6)] for unit in range(12)])
    sums = coincidences(votes).sum(axis=0)[None]
    assert krippendorff_alpha(sums)[0] == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(sums, [1, 2, 3, 4, 5])[0] == pytest.approx(0.849, abs=5e-4)


def test_one_outcome_only_has_no_agreement_beyond_chance() -> None:
    votes = np.array([[3, 0, 0]] * 5)
    assert np.isnan(krippendorff_alpha(coincidences(votes).sum(axis=0)[None])[0])
    assert np.isnan(fleiss_kappa(fleiss_table(votes).sum(axis=0)[None])[0])
    matrix = np.zeros((1, 3, 4))
    matrix[0, 1, 1] = 7
    assert np.isnan(cohen_kappa(matrix)[0])
    with pytest.raises(ValueError, match="same number"):
        fleiss_table(np.array([[2, 0, 0], [1, 0, 0]]))


@pytest.mark.parametrize("seed", range(5))
def test_the_correction_of_several_tests_is_that_of_statsmodels(seed: int) -> None:
    tests = pytest.importorskip("statsmodels.stats.multitest")
    values = np.random.default_rng(seed).random(9) ** 4
    assert benjamini_yekutieli(values.tolist()) == tests.multipletests(values, 0.05, "fdr_by")[0].tolist()
    assert benjamini_yekutieli([]) == []


@pytest.mark.parametrize("seed", range(4))
def test_the_alternative_test_is_a_t_test_of_each_annotator_left_out(seed: int) -> None:
    said = raters(seed, records=80, people=4)
    judge, people = said[:, 3].tolist(), said[:, :3].tolist()
    result = alternative_test(judge, people, range(80), epsilon=0.1)
    for left_out in range(3):
        steps, wins = [], []
        for record in range(80):
            others = [people[record][place] for place in range(3) if place != left_out]
            by_judge = np.mean([judge[record] == other for other in others])
            by_person = np.mean([people[record][left_out] == other for other in others])
            wins.append(by_judge >= by_person)
            steps.append(float(by_person >= by_judge) - float(by_judge >= by_person))
        assert result.advantage[left_out] == pytest.approx(np.mean(wins))
        assert result.p[left_out] == pytest.approx(ttest_1samp(steps, 0.1, alternative="less").pvalue, rel=1e-9)


def test_a_judge_that_says_what_people_say_may_replace_them_and_one_that_guesses_may_not() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 300)
    people = np.where(generator.random((300, 3)) < 0.85, truth[:, None], generator.integers(0, 3, (300, 3))).tolist()
    good, bad = alternative_test(truth.tolist(), people, range(300)), alternative_test([1] * 300, people, range(300))
    assert (good.winning_rate, good.passes) == (1, True)
    assert (bad.winning_rate, bad.passes) == (0, False)
    few = alternative_test([1] * 10, people[:10], range(10))
    assert (few.winning_rate, few.passes, few.p) == (None, None, [None, None, None])


def test_a_question_asked_often_is_no_further_evidence() -> None:
    said = raters(1, records=60)
    judge, people = said[:, 3].tolist(), said[:, :3].tolist()
    alone = alternative_test(judge, people, range(60))
    often = alternative_test(judge * 5, people * 5, list(range(60)) * 5)
    assert often.p == pytest.approx(alone.p)
