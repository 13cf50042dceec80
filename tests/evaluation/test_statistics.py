"""Intervals against closed formulas, other libraries and their own promise: how often they hold the truth."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom, binomtest, norm

from judgelm_jax.evaluation import coverage
from judgelm_jax.evaluation.metrics import MACRO_SCORES, macro_intervals
from judgelm_jax.evaluation.statistics import (
    absolute_interval,
    bootstrap_interval,
    cluster_sums,
    design_effect,
    difference_interval,
    magnitude_interval,
    mean_interval,
    proportion_interval,
    question_weights,
    weighted_interval,
)


def of_counts(successes: int, total: int) -> list[float]:
    return [1.0] * successes + [0.0] * (total - successes)


@pytest.mark.parametrize("total", [1, 2, 16, 50, 999])
def test_without_a_single_hit_the_interval_is_that_of_clopper_and_pearson(total: int) -> None:
    expected = binomtest(0, total).proportion_ci(method="exact")
    assert proportion_interval(of_counts(0, total), range(total)) == pytest.approx((expected.low, expected.high), abs=1e-9)
    low, high = proportion_interval(of_counts(total, total), range(total)) or (0, 0)
    assert (low, high) == pytest.approx((1 - expected.high, 1), abs=1e-9)


@pytest.mark.parametrize(("successes", "total"), [(50, 100), (40, 200), (697, 999), (1000, 1100)])
def test_inside_the_interval_of_independent_records_is_that_of_jeffreys(successes: int, total: int) -> None:
    expected = beta.ppf([0.025, 0.975], successes + 0.5, total - successes + 0.5)
    assert proportion_interval(of_counts(successes, total), range(total)) == pytest.approx(expected, abs=0.002)
    low, high = binomtest(successes, total).proportion_ci(method="wilson")
    assert proportion_interval(of_counts(successes, total), range(total)) == pytest.approx((low, high), abs=0.005)


def test_records_of_one_question_that_are_all_alike_count_as_one() -> None:
    questions, each = 60, 7
    hits = [float(question % 3 > 0) for question in range(questions)]
    alone = proportion_interval(hits, range(questions))
    clusters = [question for question in range(questions) for _ in range(each)]
    together = proportion_interval([hits[question] for question in clusters], clusters)
    assert together == pytest.approx(alone, abs=0.002)
    assert design_effect([hits[question] for question in clusters], clusters) == pytest.approx(each, rel=0.02)


def test_a_weight_of_two_counts_for_the_share_but_is_no_second_record() -> None:
    hits, weights = np.array([1.0, 0.0] * 40), np.array([1.0, 1.0, 3.0, 3.0] * 20)
    low, high = weighted_interval(hits, weights, range(80)) or (0, 0)
    assert weighted_interval(hits, np.full(80, 7.0), range(80)) == pytest.approx(proportion_interval(hits, range(80)))
    assert (low + high) / 2 == pytest.approx(0.5, abs=1e-6)
    # The variance of a weighted mean of 0 and 1, each half of the time: ¼ Σw² / (Σw)².
    half = 1.96 * math.sqrt(0.25 * (weights**2).sum()) / weights.sum()
    assert (high - low) / 2 == pytest.approx(half, rel=0.04)
    assert weighted_interval([1.0, 0.0], [1.0, 0.0], [0, 1]) == proportion_interval([1.0], [0])
    assert weighted_interval([1.0], [0.0], [0]) is None


def test_the_variance_between_questions_is_that_of_statsmodels() -> None:
    regression = pytest.importorskip("statsmodels.api")
    generator = np.random.default_rng(0)
    clusters = generator.integers(0, 80, 600)
    values = (generator.random(600) < generator.random(80)[clusters]).astype(float)
    fit = regression.OLS(values, np.ones(600)).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    questions = len(set(clusters.tolist()))
    variance = fit.bse[0] ** 2 * questions / (questions - 1)
    share = values.mean()
    assert design_effect(values, clusters.tolist()) == pytest.approx(variance / (share * (1 - share) / 600), rel=1e-9)
    scores = values * 6 + generator.random(600) * 3
    low, high = mean_interval(scores, clusters.tolist(), (0.0, 10.0)) or (0, 0)
    fit = regression.OLS(scores, np.ones(600)).fit(cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False})
    half = norm.ppf(0.975) * fit.bse[0] * math.sqrt(questions / (questions - 1))
    assert (low + high) / 2 == pytest.approx(scores.mean(), abs=1e-9)
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)  # Student's instead of the normal distribution


def test_pandalm_is_wider_by_question_than_by_record(shared: Path) -> None:
    """GPT-3.5's agreement: 0.6977, width about 0.090 by question and 0.057 by record (design effect 2.5)."""
    folder = shared / "data/benchmarks/pandalm"
    items = json.loads((folder / "testset-v1.json").read_text())
    said = {str(row["idx"]): row["gpt_result"] for row in json.loads((folder / "gpt-3.5-turbo-testset-v1.json").read_text())}
    names = {"1": 1, "2": 2, "Tie": 0}
    hits, clusters = [], []
    for item in items:
        votes = [item[f"annotator{number}"] for number in (1, 2, 3)]
        majority = max(set(votes), key=votes.count)
        hits.append(float(names.get(said[str(item["idx"])]) == majority))
        clusters.append((item["instruction"], item["input"]))
    assert (len(hits), len(set(clusters))) == (999, 170)
    assert np.mean(hits) == pytest.approx(0.6977, abs=5e-5)
    assert design_effect(hits, clusters) == pytest.approx(2.5, abs=0.05)
    (low, high), (plain_low, plain_high) = proportion_interval(hits, clusters), proportion_interval(hits, range(999))
    assert high - low == pytest.approx(0.090, abs=0.002)
    assert plain_high - plain_low == pytest.approx(0.057, abs=0.001)


SIZES = st.lists(st.integers(1, 6), min_size=1, max_size=12)


@given(SIZES, st.data())
def test_no_interval_is_without_width_and_each_holds_the_sample(sizes: list[int], data: st.DataObject) -> None:
    clusters = [question for question, size in enumerate(sizes) for _ in range(size)]
    number = len(clusters)
    hits = data.draw(st.lists(st.sampled_from([0.0, 1.0]), min_size=number, max_size=number))
    steps = data.draw(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=number, max_size=number))
    scores = data.draw(st.lists(st.sampled_from([0.0, 5.0, 10.0]), min_size=number, max_size=number))
    for value, interval, (least, most) in (
        (np.mean(hits), proportion_interval(hits, clusters), (0, 1)),
        (np.mean(steps), difference_interval(steps, clusters), (-1, 1)),
        (abs(np.mean(steps)), magnitude_interval(steps, clusters), (0, 1)),
        (np.mean(scores), mean_interval(scores, clusters, (0.0, 10.0)), (0, 10)),
    ):
        low, high = interval or (0, 0)
        assert high - low > 1e-3
        assert least - 1e-9 <= low <= value + 1e-9
        assert value - 1e-9 <= high <= most + 1e-9


@pytest.mark.parametrize("records", [1, 16, 400])
@pytest.mark.parametrize("cell", [(0, 0), (0, 1), (2, 3)])
def test_macro_scores_of_one_sided_samples_have_a_width(records: int, cell: tuple[int, int]) -> None:
    table = np.zeros((records, 3, 4))
    table[:, cell[0], cell[1]] = 1
    intervals = macro_intervals(table)
    for name, statistic in MACRO_SCORES:
        value = float(statistic(table.sum(axis=0)[None])[0])
        low, high = intervals[name] or (0, 0)
        assert 0 <= low <= value <= high <= 1
        assert high - low > 1e-3


def test_one_pseudo_question_at_each_end_gives_clopper_and_pearson() -> None:
    """The bootstrap of a share of independent records, drawn, beside the formula."""
    for successes, total in ((0, 30), (3, 40), (39, 40)):
        table = np.stack([of_counts(successes, total), np.ones(total)], axis=1)
        drawn = bootstrap_interval(
            lambda sums: sums[:, 0] / sums[:, 1], table, worst=np.array([[0.0, 1.0]]), best=np.array([[1.0, 1.0]])
        )
        exact = binomtest(successes, total).proportion_ci(method="exact")
        low, high = drawn or (0, 0)
        # Percentiles are expanded for few questions, so it may be wider than the formula, but not by much.
        assert exact.low - 0.02 <= low <= exact.low + 0.01
        assert exact.high - 0.01 <= high <= exact.high + 0.02


def test_the_bootstrap_of_a_mean_is_the_sandwich() -> None:
    generator = np.random.default_rng(5)
    table = np.stack([generator.normal(3, 1, 400), np.ones(400)], axis=1)
    low, high = bootstrap_interval(lambda sums: sums[:, 0] / sums[:, 1], table) or (0, 0)
    half = 1.96 * table[:, 0].std(ddof=1) / 20
    assert (low, high) == pytest.approx((table[:, 0].mean() - half, table[:, 0].mean() + half), abs=0.012)


def test_sums_by_question_are_those_of_a_loop() -> None:
    values, clusters = np.arange(12.0).reshape(6, 2), ["b", "a", "b", 3, "a", "b"]
    expected = [[0 + 4 + 10, 1 + 5 + 11], [2 + 8, 3 + 9], [6, 7]]
    assert cluster_sums(values, clusters).tolist() == expected
    with pytest.raises(ValueError, match="clusters"):
        cluster_sums(values, clusters[:-1])


def test_nothing_counted_gives_no_interval() -> None:
    assert proportion_interval([], []) is None
    assert difference_interval([], []) is None
    assert magnitude_interval([], []) is None
    assert mean_interval([], [], (0.0, 10.0)) is None
    assert bootstrap_interval(lambda sums: sums[:, 0], np.zeros((0, 3))) is None
    assert absolute_interval(None) is None


def test_the_same_seed_gives_the_same_interval() -> None:
    steps = [1.0, -1.0, 0.0, 0.0, 1.0] * 9
    first, again, other = (difference_interval(steps, range(45), seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert question_weights(10_000).shape == (2000, 10_000)
    assert question_weights(50).mean() == pytest.approx(1, abs=0.01)


def test_the_interval_of_an_absolute_value_folds_at_zero() -> None:
    assert absolute_interval((0.1, 0.3)) == (0.1, 0.3)
    assert absolute_interval((-0.3, -0.1)) == (0.1, 0.3)
    assert absolute_interval((-0.2, 0.1)) == (0.0, 0.2)


def test_the_order_of_records_and_the_names_of_questions_do_not_matter() -> None:
    hits, clusters = of_counts(31, 60), [number % 17 for number in range(60)]
    shuffled = list(itertools.chain(range(0, 60, 2), range(1, 60, 2)))
    assert proportion_interval([hits[number] for number in shuffled], [f"q{clusters[number]}" for number in shuffled]) == (
        pytest.approx(proportion_interval(hits, clusters), abs=1e-12)
    )


@pytest.mark.slow
@pytest.mark.parametrize("row", coverage.SETTINGS, ids=str)
def test_intervals_hold_the_truth_as_often_as_they_say(row: coverage.Setting) -> None:
    """As the README's table, with fewer repetitions: four standard errors of the simulation are allowed."""
    repetitions = 400
    for name, measured in coverage.measure(row, repetitions, seed=11).items():
        slack = 4 * math.sqrt(0.95 * 0.05 / repetitions)
        assert measured.share >= 0.95 - slack, (name, measured)
        if measured.enough:
            assert measured.share <= 0.95 + slack, (name, measured)
        assert measured.width > 0


def how_often_it_holds(total: int, share: float) -> float:
    """Exactly, by summing over all samples of independent records."""
    held = 0.0
    for successes in range(total + 1):
        chance = float(binom.pmf(successes, total, share))
        if chance > 1e-9:
            low, high = proportion_interval(of_counts(successes, total), range(total)) or (1, 0)
            held += chance * (low <= share <= high)
    return held


@pytest.mark.parametrize(("total", "share"), [(50, 0.3), (50, 0.5), (170, 0.1), (200, 0.05), (500, 0.05), (500, 0.1)])
def test_of_independent_records_the_interval_holds_the_truth_at_95_per_cent(total: int, share: float) -> None:
    """0.967 is what the steps of 50 records with one half leave."""
    assert 0.935 <= how_often_it_holds(total, share) <= 0.968


@pytest.mark.parametrize("share", [0.0005, 0.002, 0.01, 0.03])
@pytest.mark.parametrize("total", [20, 50, 200])
def test_at_the_edge_it_holds_the_truth_at_least_as_often(total: int, share: float) -> None:
    assert how_often_it_holds(total, share) >= 0.95
