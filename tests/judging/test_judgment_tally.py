"""What a summary counts, against counting by hand, and when it warns of the position."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.judging.judgment_tally import Tally, judgments
from judgelm_jax.verdicts.verdicts import STATUSES

WINNERS = st.sampled_from([None, 0, 1, 2])


def both(forward: int | None, back: int | None, status: str = "ok") -> dict[str, Any]:
    return {"status": status, "order": "both", "winner": 0, "forward": {"winner": forward}, "reversed": {"winner": back}}


@given(st.lists(st.tuples(WINNERS, WINNERS, st.sampled_from(STATUSES)), max_size=40))
def test_rows_of_both_orders_are_counted_as_by_hand(rows: list[tuple[int | None, int | None, str]]) -> None:
    counts = Tally(both(*row) for row in rows).summary()
    assert [counts[name] for name in STATUSES] == [sum(row[2] == name for row in rows) for name in STATUSES]
    judged = [(forward, back) for forward, back, _ in rows if None not in (forward, back)]
    if rows:
        assert counts["consistent"] == sum(forward == back for forward, back in judged)
        assert counts["inconsistent"] == sum(forward != back for forward, back in judged)
        assert counts["without_winner"] == len(rows) - len(judged)
    if judged:
        assert counts["position"]["pairs"] == len(judged)
        assert counts["position"]["shown_first_wins"] == judged.count((1, 2)) / len(judged)
        assert counts["position"]["shown_second_wins"] == judged.count((2, 1)) / len(judged)
    else:
        assert "position" not in counts


@given(st.lists(WINNERS, max_size=40), st.sampled_from(["forward", "reversed"]))
def test_rows_of_one_order_are_counted_by_the_place_that_was_shown(winners: list[int | None], order: str) -> None:
    counts = Tally({"status": "ok", "order": order, "winner": winner} for winner in winners).summary()
    named = [winner for winner in winners if winner is not None]
    assert "consistent" not in counts
    if named:
        first = 1 if order == "forward" else 2
        assert counts["position"]["shown_first_wins"] == named.count(first) / len(named)
        assert counts["position"]["shown_second_wins"] == named.count(3 - first) / len(named)


@pytest.mark.parametrize(("follow", "of", "warns"), [(20, 20, True), (19, 19, False), (80, 100, True), (79, 100, False)])
@pytest.mark.parametrize(("winners", "place"), [((1, 2), "first"), ((2, 1), "second")])
def test_both_orders_warn_where_nearly_all_pairs_follow_the_position(
    follow: int, of: int, warns: bool, winners: tuple[int, int], place: str
) -> None:
    warning = Tally([both(*winners)] * follow + [both(1, 1)] * (of - follow)).summary()["position"]["warning"]
    assert (warning is not None) == warns
    if warning:
        assert f"the answer shown {place} wins in both orders in {follow} of {of} pairs" in warning
        assert "\n" not in warning
        assert "swap augmentation" in warning


@pytest.mark.parametrize(("follow", "of", "warns"), [(100, 100, True), (99, 99, False), (95, 100, True), (94, 100, False)])
def test_one_order_warns_only_of_many_pairs_and_names_the_remedy(follow: int, of: int, warns: bool) -> None:
    rows = [{"status": "ok", "order": "reversed", "winner": winner} for winner in [2] * follow + [0] * (of - follow)]
    warning = Tally(rows).summary()["position"]["warning"]
    assert (warning is not None) == warns
    if warning:
        assert f"the answer shown first wins in {follow} of {of} pairs" in warning
        assert "--orders=both" in warning


def test_ties_in_both_orders_follow_no_position() -> None:
    assert Tally([both(0, 0)] * 200).summary()["position"] == {
        "pairs": 200,
        "shown_first_wins": 0.0,
        "shown_second_wins": 0.0,
        "warning": None,
    }


@pytest.mark.parametrize(
    "row", [{}, {"status": "fine", "winner": 1}, {"status": "ok"}, {"status": "ok", "order": "both", "winner": 1}]
)
def test_a_line_that_is_no_judgment_is_named(tmp_path: Path, row: dict[str, Any]) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text(json.dumps(both(1, 1)) + "\n" + json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"j\.jsonl:2: is no judgment"):
        list(judgments(path))


def test_what_positions_are_worth_is_averaged_by_the_number_of_answers():
    def row(*effects, **fields):
        return {"status": "ok", "order": "arrangements", "winner": 1, "position_effects": list(effects), **fields}

    without = {"status": "unparsed", "order": "arrangements", "position_effects": None, "arrangements": [{}, {}]}
    one = {"status": "ok", "order": "arrangements", "arrangements": [{}]}
    summary = Tally([row(1, -1, 0), row(0, 0.5, -0.5), row(2, 0, 0, -2), without, one]).summary()
    assert summary["position_effects"] == {
        "3": {"records": 2, "effects": [0.5, -0.25, -0.25]},
        "4": {"records": 1, "effects": [2, 0, 0, -2]},
    }
    assert (summary["ok"], summary["unparsed"]) == (4, 1)
    assert "position_effects" not in Tally([one]).summary()


def test_judgments_of_any_number_of_answers_are_judgments(tmp_path):
    path = tmp_path / "judgments.jsonl"
    good = {"question_id": 1, "status": "ok", "order": "arrangements", "arrangements": [{"order": [1]}], "scores": [7]}
    path.write_text(json.dumps(good) + "\n")
    assert list(judgments(path)) == [good]
    path.write_text(json.dumps({**good, "arrangements": "none"}) + "\n")
    with pytest.raises(InputError, match="is no judgment"):
        list(judgments(path))


@pytest.mark.parametrize(("low", "warns"), [(0, False), (2, False), (3, True)])
def test_probabilities_of_what_a_judge_would_hardly_write_are_named(low, warns):
    masses = [0.001] * low + [0.9] * (4 - low)
    rows = [{"status": "ok", "winner": 1, "order": "forward", "covered_mass": mass} for mass in masses]
    found = Tally([*rows, {"status": "overflow", "winner": None, "order": "forward"}]).summary()["covered_mass"]
    assert (found["judgments"], found["low"]) == (4, low)
    assert (found["warning"] is not None) == warns
    if warns:
        assert found["warning"].startswith("in 3 of 4 judgments any score line has a probability below 0.1")
