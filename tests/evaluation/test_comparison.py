"""Paired comparisons against statsmodels, brute force and counts by hand."""

import itertools

import numpy as np
import pytest
from scipy.stats import permutation_test

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.comparison import compare, mcnemar_p, sign_permutation_p
from judgelm_jax.evaluation.joining import Facts, Joined, Judged, Prediction


def judged(winner: int | None) -> Judged:
    return Judged("unparsed" if winner is None else "ok", winner)


def joined(labels: list[int] | None, winners: list[int | None], keys: list[str], clusters: list[str]) -> Joined:
    rows = [
        Prediction(1, judged(winner), judged(winner), judged(1), facts=Facts(cluster))
        for winner, cluster in zip(winners, clusters, strict=True)
    ]
    return Joined(labels, rows, 0, 0, 0, keys=keys)


@pytest.mark.parametrize(("only_this", "only_other"), [(0, 0), (3, 9), (12, 12), (40, 21), (0, 7)])
def test_mcnemar_is_the_exact_test_of_statsmodels(only_this: int, only_other: int) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    expected = tables.mcnemar([[5, only_this], [only_other, 5]], exact=True).pvalue
    assert mcnemar_p(only_this, only_other) == pytest.approx(expected, abs=1e-12)


def test_exchanging_whole_questions_is_brute_force() -> None:
    values, clusters = [1, 1, -1, 0, 1, 0, 1], ["a", "a", "b", "b", "c", "d", "e"]
    sums = [2, -1, 1, 0, 1]
    totals = [
        abs(sum(sign * value for sign, value in zip(signs, sums, strict=True)))
        for signs in itertools.product((1, -1), repeat=5)
    ]
    assert sign_permutation_p(values, clusters) == pytest.approx(np.mean([total >= 3 for total in totals]))


@pytest.mark.parametrize("seed", range(5))
def test_exchanging_whole_questions_is_the_permutation_test_of_scipy(seed: int) -> None:
    random = np.random.default_rng(seed)
    one, other = random.random((2, 30)) < [[0.8], [0.5]]
    clusters = random.integers(0, 11, 30)
    steps = one.astype(float) - other
    sums = [np.bincount(clusters, values, 11) for values in (one, other)]
    test = permutation_test(
        sums, lambda a, b, axis: (a - b).sum(axis), permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert sign_permutation_p(steps, clusters.tolist()) == pytest.approx(test.pvalue, abs=1e-9)


def test_with_independent_records_exchanging_is_mcnemar() -> None:
    small = [1] * 9 + [-1] * 3 + [0] * 20
    assert sign_permutation_p(small, range(32)) == pytest.approx(mcnemar_p(9, 3), abs=1e-12)
    large = [1] * 60 + [-1] * 40 + [0] * 100
    assert sign_permutation_p(large, range(200)) == pytest.approx(mcnemar_p(60, 40), abs=0.01)
    assert sign_permutation_p([0, 0], range(2)) == 1


def test_a_comparison_counts_what_each_alone_has_right() -> None:
    clusters = ["q", "q", "r", "r"]
    one = joined([1, 1, 2, 0], [1, 1, 1, None], ["a", "b", "c", "d"], clusters)
    other = joined([1, 1, 2], [2, 1, 2], ["b", "a", "c"], ["q", "q", "r"])
    summary = compare(one, other, "wrong")
    assert (summary["records"], summary["clusters"]) == (3, 2)
    assert (summary["agreement"], summary["agreement_other"]) == (2 / 3, 2 / 3)
    assert (summary["only_this"], summary["only_other"], summary["difference"]) == (1, 1, 0)
    assert summary["same_verdict"] == 1 / 3
    assert summary["mcnemar_p"] == summary["cluster_p"] == 1
    # Consistent: (1, 1), (1, 1), (1, 1) against (2, 1), (1, 1), (2, 1).
    assert summary["consistency_difference"] == pytest.approx(2 / 3)
    low, high = summary["difference_interval"]
    assert low < 0 < high


def test_a_file_against_itself_differs_by_nothing_but_is_not_known_exactly() -> None:
    keys = [str(number) for number in range(40)]
    files = joined([1] * 40, [1, 2] * 20, keys, keys)
    summary = compare(files, files, "wrong")
    assert (summary["difference"], summary["same_verdict"], summary["mcnemar_p"]) == (0, 1, 1)
    assert summary["difference_interval"][0] < 0 < summary["difference_interval"][1]


def test_without_labels_only_the_verdicts_are_compared() -> None:
    files = joined(None, [1, 2, 0], ["a", "b", "c"], ["a", "b", "c"])
    assert "difference" not in compare(files, files, "wrong")
    with pytest.raises(InputError, match="no record is in both"):
        compare(files, joined(None, [1], ["z"], ["z"]), "wrong")
