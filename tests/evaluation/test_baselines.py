"""Trivial judges and win rates against counts by hand."""

import pytest

from judgelm_jax.evaluation.baselines import baselines, model_wins, wins
from judgelm_jax.evaluation.joining import Facts, Joined, Judged, Prediction


def joined(*rows: tuple[int, int | None, tuple[int, int] | None, tuple[str, str] | None]) -> Joined:
    """Rows of (label, winner, lengths, models)."""
    predictions = [
        Prediction(
            1, Judged("unparsed" if winner is None else "ok", winner), None, None, facts=Facts(None, None, sizes, models)
        )
        for _, winner, sizes, models in rows
    ]
    return Joined([label for label, *_ in rows], predictions, 0, 0, 0)


FILES = joined(
    (1, 1, (9, 2), ("a", "b")),
    (1, 2, (3, 8), ("b", "a")),
    (2, 0, (1, 8), ("a", "c")),
    (0, None, (4, 4), ("b", "c")),
    (1, 1, (2, 3), ("a", "a")),
)


def test_trivial_judges_agree_as_often_as_counted_by_hand() -> None:
    summary = baselines(FILES, "wrong")
    assert {name: summary[name] for name in summary if not name.endswith("_interval")} == {
        "always_first": 3 / 5,
        "always_second": 1 / 5,
        "majority": 3 / 5,
        "majority_winner": "first",
        "longer_answer": 3 / 5,
        "shorter_answer": pytest.approx(3 / 5),
        "best": "always_first",
        "ahead_of_best": pytest.approx(-1 / 5),
        "ahead_of_best_p": 1.0,
    }
    assert baselines(FILES, "exclude")["always_first"] == 3 / 4


def test_the_best_of_them_is_compared_on_the_same_records() -> None:
    rows = [(1, 1, None, None)] * 60 + [(2, 1, None, None)] * 20 + [(2, 2, None, None)] * 6
    summary = baselines(joined(*rows), "wrong")
    assert (summary["best"], summary["ahead_of_best"]) == ("always_first", pytest.approx(6 / 86))
    assert summary["ahead_of_best_p"] == pytest.approx(2 / 2**6)  # six records, all of one sign
    two = baselines(joined((1, 1, None, None), (1, 2, None, None)), "wrong")
    assert (two["ahead_of_best"], two["ahead_of_best_p"]) == (-0.5, 1)


def test_without_labels_or_lengths_there_is_no_such_baseline() -> None:
    assert baselines(Joined(None, FILES.predictions, 0, 0, 0), "wrong") == {}
    assert "longer_answer" not in baselines(joined((1, 1, None, None)), "wrong")


def test_wins_are_shares_of_the_records_with_a_verdict() -> None:
    summary = wins(FILES, "wrong")
    assert (summary["first_wins"], summary["second_wins"], summary["tie_rate"]) == (2 / 4, 1 / 4, 1 / 4)
    assert wins(FILES, "tie")["tie_rate"] == 2 / 5


def test_each_model_wins_as_counted_by_hand() -> None:
    table = model_wins(FILES, "wrong")
    assert list(table) == ["a", "c", "b"]
    assert (table["a"]["wins"], table["a"]["ties"], table["a"]["losses"], table["a"]["win_rate"]) == (2, 1, 0, 2.5 / 3)
    assert (table["b"]["wins"], table["b"]["ties"], table["b"]["losses"], table["b"]["win_rate"]) == (0, 0, 2, 0.0)
    assert (table["c"]["records"], table["c"]["win_rate"]) == (1, 0.5)
