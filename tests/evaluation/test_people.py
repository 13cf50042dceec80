"""The judge beside people, scores beside the teacher's, length, and repetition, against scipy and counts by hand."""

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import Facts, Joined, Judged, Prediction
from judgelm_jax.evaluation.people import kappa, with_people
from judgelm_jax.evaluation.scores import length_bias, score_correlation
from judgelm_jax.evaluation.stability import stability


def row(winner: int | None, cluster: str | None = None, **facts: object) -> Prediction:
    status = "unparsed" if winner is None else "ok"
    scores = facts.pop("scores", None)
    return Prediction(1, Judged(status, winner), None, None, scores, facts=Facts(cluster, **facts))  # type: ignore[arg-type]


def test_people_and_judge_agree_as_counted_by_hand() -> None:
    people = [(1, 1, 2), (2, 2, None), (0, 0, 0), (1, None, None), None]
    files = Joined([1, 2, 0, 1, 1], [row(1), row(1), row(0), row(2), row(1)], 0, 0, 0, people=people)
    summary = with_people(files, "wrong")
    assert (summary["records"], summary["annotators"]) == (3, 3)
    assert summary["people_agreement"] == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert summary["judge_agreement"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert "fleiss_kappa" not in summary  # not all records have as many votes
    low, high = summary["krippendorff_alpha_interval"]
    assert low < summary["krippendorff_alpha"] < high
    assert with_people(Joined([1], [row(1)], 0, 0, 0, people=[None]), "wrong") == {}


def test_kappa_of_a_perfect_judge_is_not_known_exactly() -> None:
    labels = [1, 2, 0] * 10
    summary = kappa(Joined(labels, [row(label) for label in labels], 0, 0, 0), "wrong")
    assert summary["kappa"] == 1
    assert 0.5 < summary["kappa_interval"][0] < 0.95
    only_first = kappa(Joined([1, 1], [row(1), row(1)], 0, 0, 0), "wrong")
    assert only_first == {"kappa": None, "kappa_interval": None}


def test_rank_correlations_are_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    teacher = generator.integers(1, 11, (90, 2)).astype(float)
    judge = np.clip(teacher + generator.integers(-3, 4, (90, 2)), 0, 10)
    rows = [row(1, str(number // 3), scores=tuple(judge[number])) for number in range(90)]
    files = Joined([1] * 90, rows, 0, 0, 0, teacher_scores=[tuple(pair) for pair in teacher.tolist()])
    summary = score_correlation(files)
    gaps = teacher[:, 0] - teacher[:, 1], judge[:, 0] - judge[:, 1]
    assert summary["gap_spearman"] == pytest.approx(spearmanr(*gaps).statistic)
    assert summary["gap_kendall"] == pytest.approx(kendalltau(*gaps).statistic)
    assert summary["score_spearman"] == pytest.approx(spearmanr(teacher.ravel(), judge.ravel()).statistic)
    low, high = summary["gap_spearman_interval"]
    # Fisher's transformation gives about the same for independent records.
    expected = np.tanh(np.arctanh(summary["gap_spearman"]) + np.array([-1.96, 1.96]) * np.sqrt(1.06 / 87))
    assert (low, high) == pytest.approx(tuple(expected), abs=0.08)
    assert score_correlation(Joined([1], rows[:1], 0, 0, 0, teacher_scores=[(1.0, 2.0)])) == {}


def test_the_pull_of_longer_answers_is_held_against_that_of_the_labels() -> None:
    lengths = [(9, 1), (9, 1), (1, 9), (5, 5), (1, 9), (2, 1)]
    rows = [row(winner, lengths=pair) for winner, pair in zip([1, 2, 2, 1, 2, None], lengths, strict=True)]
    summary = length_bias(Joined([1, 2, 1, 1, 0, 1], rows, 0, 0, 0), "wrong")
    assert summary["longer_wins"] == 3 / 4
    assert summary["longer_wins_in_labels"] == 2 / 4
    assert summary["length_bias"] == pytest.approx((0 + 0 + 1) / 3)
    assert length_bias(Joined(None, rows, 0, 0, 0), "wrong")["longer_wins"] == 3 / 4
    assert length_bias(Joined([1], [row(1)], 0, 0, 0), "wrong") == {}


def test_runs_are_compared_on_the_records_that_all_have() -> None:
    one = Joined([1, 2, 0], [row(1), row(2), row(1)], 0, 0, 0, keys=["a", "b", "c"])
    two = Joined([2, 1], [row(2), row(2)], 0, 0, 0, keys=["b", "a"])
    three = Joined([1, 2], [row(1), row(2)], 0, 0, 0, keys=["a", "b"])
    summary = stability([one, two, three], "wrong")
    assert (summary["runs"], summary["records"]) == (3, 2)
    assert summary["same_winner"] == 1 / 2
    assert summary["pairwise"] == pytest.approx((1 / 3 + 1) / 2)
    assert summary["agreement_by_run"] == [1.0, 0.5, 1.0]
    assert summary["agreement_of_vote"] == 1.0
    assert stability([one, two], "wrong")["agreement_of_vote"] == 0.5  # 1 and 2 once each: a tie
    with pytest.raises(InputError, match="all judgment files"):
        stability([one, Joined([1], [row(1)], 0, 0, 0, keys=["z"])], "wrong")
