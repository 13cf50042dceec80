"""Score lines, winners, and the judgments made of them."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.judging import all_pairs
from judgelm_jax.prompts.arrangements import FORWARD, REVERSED
from judgelm_jax.verdicts import distributions, merging, score_lines, verdicts
from judgelm_jax.verdicts.verdicts import Verdict

RECORD = {"question_id": 7, "question_body": "q", "answer1_body": "a", "answer2_body": "b", "extra": [1]}
MADE = {"pred_id": "p", "pred_model_id": "m", "tstamp": 1.5}

GRADE = verdicts.Reading(score_lines.LineForm("", " ", score_lines.SCORE_STRINGS, 1), begun="10")


def test_score_strings_are_exactly_the_grammar() -> None:
    candidates = {"".join(letters) for length in range(1, 5) for letters in itertools.product("0123456789.", repeat=length)}
    grammar = re.compile(r"10(\.0)?|[0-9](\.[0-9])?")
    assert set(score_lines.SCORE_STRINGS) == {text for text in candidates if grammar.fullmatch(text)}
    assert len(score_lines.SCORE_STRINGS) == len(set(score_lines.SCORE_STRINGS)) == 112


def test_every_score_line_parses_to_its_numbers() -> None:
    lines = list(score_lines.score_lines(2))
    assert len(set(lines)) == 112**2
    for line in lines:
        assert line.endswith("\n")
        assert score_lines.parse_scores(line + "why", 2) == [float(part) for part in line.split()]
        assert score_lines.parse_scores_upstream(line) == score_lines.parse_scores(line, 2)


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("8 9", [8, 9]),
        ("8, 9", [8, 9]),
        ("8,9", [8, 9]),
        ("  8   9 \nreason 3 4", [8, 9]),
        ("8\t9\r\nreason", [8, 9]),
        ("8/10 9/10", [8, 9]),
        ("8/10, 9 / 10", [8, 9]),
        ("8.5 7", [8.5, 7]),
        ("10.0 0", [10, 0]),
        ("8 9.", [8, 9]),
    ],
)
def test_the_ways_in_which_judges_write_scores_are_read(text: str, scores: list[float]) -> None:
    assert score_lines.parse_scores(text, 2) == scores


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8",
        "8 9 7",
        "89",
        "nan 2",
        "inf 2",
        "-1 -1",
        "-1 9",
        "11 2",
        "1e1 2",
        "8,,9",
        "8 9,",
        ", 8 9",
        "8/10",
        "8/9 9/9",
        "8 9/100",
        "Scores: 8 9",
        "(8, 9)",
        "8 and 9",
        "８ ９",
        "8 9 because",
        "\n8 9",
        "１ 2",
        "99 100",
        "8/10/10 9",
    ],
)
def test_anything_else_is_not_guessed_at(text: str) -> None:
    assert score_lines.parse_scores(text, 2) is None


@given(st.text(alphabet="0123456789. ,/\t\n-+naif10", max_size=12), st.integers(1, 3))
def test_parsed_scores_are_always_in_range_and_complete(text: str, count: int) -> None:
    scores = score_lines.parse_scores(text, count)
    assert scores is None or (len(scores) == count and all(0 <= score <= 10 for score in scores))


@given(st.text(alphabet="0123456789. ,/\t\n-", max_size=10))
def test_the_tolerant_parser_never_contradicts_the_published_one(text: str) -> None:
    tolerant, upstream = score_lines.parse_scores(text, 2), score_lines.parse_scores_upstream(text)
    if tolerant is not None and upstream != [-1, -1]:
        assert tolerant == upstream


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ("8 9\nx", [8, 9]),
        ("8,9", [8, 9]),
        ("8, 9", [-1, -1]),
        ("8 9 ", [-1, -1]),
        ("8/10 9/10", [-1, -1]),
        ("8\t9", [-1, -1]),
        ("11 -3", [11, -3]),
        ("8 9 7", [-1, -1]),
        ("", [-1, -1]),
        ("x y", [-1, -1]),
        ("8 9\r", [8, 9]),
    ],
)
def test_the_upstream_parser_keeps_the_published_behaviour(text: str, scores: list[float]) -> None:
    assert score_lines.parse_scores_upstream(text) == scores


def test_real_reviews_parse_to_the_scores_that_stand_beside_them(shared: Path) -> None:
    for name in ("gpt4_pairs_train.jsonl", "gpt4_pairs_val.jsonl"):
        for line in (shared / "data/reviews" / name).read_text(encoding="utf-8").split("\n")[:-1]:
            row = json.loads(line)
            assert score_lines.parse_scores(row["text"], 2) == row["score"]


def test_real_prose_reviews_are_never_read_with_other_scores_than_people_read(shared: Path) -> None:
    for line in (shared / "data/reviews/parser_hard_cases.jsonl").read_text(encoding="utf-8").split("\n")[:-1]:
        row = json.loads(line)
        assert score_lines.parse_scores(row["text"], 2) in (None, row["score"])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5))
def test_the_winner_is_the_only_answer_with_the_best_score(scores: list[int]) -> None:
    best = [number for number, score in enumerate(scores, start=1) if score == max(scores)]
    assert score_lines.winner_of(scores) == (best[0] if len(best) == 1 else 0)


def test_a_reversed_verdict_is_told_in_the_order_of_the_record() -> None:
    verdict = verdicts.verdict_from_text("9 4\nThe first is better.\n", REVERSED, "stop", (0, 3))
    assert (verdict.scores, verdict.winner, verdict.pred_text) == ((4, 9), 2, "9 4\nThe first is better.\n")
    assert (verdict.status, verdict.truncated, verdict.explanation) == ("truncated", (0, 3), "The first is better.")
    assert verdicts.verdict_from_text("1 2 3", (3, 2, 1), "stop", (0, 0, 0)).scores == (3, 2, 1)


def test_a_text_without_scores_is_unparsed_even_when_answers_were_shortened() -> None:
    verdict = verdicts.verdict_from_text("Once upon a time", FORWARD, "length", (5, 0))
    assert (verdict.status, verdict.scores, verdict.winner, verdict.finish) == ("unparsed", None, None, "length")


def test_a_judgment_holds_the_record_unchanged_and_the_verdict() -> None:
    before = json.dumps(RECORD)
    row = merging.judgment(RECORD, verdicts.verdict_from_text("3 8.5\nwhy", FORWARD, "stop", (0, 0)), **MADE)
    assert json.dumps(RECORD) == before
    assert row == {
        **RECORD,
        **MADE,
        "pred_text": "3 8.5\nwhy",
        "status": "ok",
        "scores": [3, 8.5],
        "winner": 2,
        "order": "forward",
        "truncated": [0, 0],
        "finish": "stop",
        "explanation": "why",
    }


def test_two_orders_merge_to_the_mean_and_its_winner() -> None:
    forward = verdicts.verdict_from_text("8 6", FORWARD, "stop", (0, 0))
    back = verdicts.verdict_from_text("9 4", REVERSED, "length", (0, 2))
    row = merging.judgment(RECORD, (forward, back), **MADE)
    assert (row["scores"], row["winner"], row["order"], row["consistent"]) == ([6, 7.5], 2, "both", False)
    assert (row["status"], row["pred_text"], row["truncated"], row["finish"]) == ("truncated", "8 6", [0, 2], "length")
    assert row["forward"]["winner"] == 1
    assert row["reversed"] == {
        "pred_text": "9 4",
        "status": "truncated",
        "scores": [4, 9],
        "winner": 2,
        "finish": "length",
        "explanation": "",
        "truncated": [0, 2],
    }


SINGLE = {
    "ok": verdicts.verdict_from_text("8 6", FORWARD, "stop", (0, 0)),
    "truncated": verdicts.verdict_from_text("8 6", FORWARD, "stop", (1, 0)),
    "unparsed": verdicts.verdict_from_text("no", FORWARD, "stop", (0, 0)),
    "overflow": verdicts.overflow_verdict(FORWARD),
}


@pytest.mark.parametrize(("one", "other"), list(itertools.product(SINGLE, SINGLE)))
def test_a_merged_row_has_the_worse_status_and_scores_only_from_both(one: str, other: str) -> None:
    row = merging.judgment(RECORD, (SINGLE[one], SINGLE[other]), **MADE)
    order = ["ok", "truncated", "unparsed", "overflow"]
    assert row["status"] == order[max(order.index(one), order.index(other))]
    judged = {one, other} <= {"ok", "truncated"}
    assert (row["scores"], row["winner"], row["consistent"]) == (([8, 6], 1, True) if judged else (None, None, False))
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("field", merging.OUTPUT_FIELDS)
def test_a_field_that_the_judgment_has_too_is_refused_or_kept_under_another_name(field: str) -> None:
    verdict = verdicts.verdict_from_text("8 6", FORWARD, "stop", (0, 0))
    record = {**RECORD, field: ["mine"]}
    with pytest.raises(InputError, match=f"the field '{field}' is one .*--keep_as=input_ to keep it as 'input_{field}'"):
        merging.judgment(record, verdict, **MADE)
    kept = merging.judgment(record, verdict, keep_as="input_", **MADE)
    assert kept == {**merging.judgment(RECORD, verdict, **MADE), f"input_{field}": ["mine"]}
    with pytest.raises(InputError, match=f"cannot be kept as 'input_{field}'"):
        merging.judgment({**record, f"input_{field}": 1}, verdict, keep_as="input_", **MADE)
    assert record == {**RECORD, field: ["mine"]}


def test_a_judgment_is_judged_again_and_the_earlier_verdict_is_kept() -> None:
    forward = verdicts.verdict_from_text("8 6", FORWARD, "stop", (0, 0))
    old = merging.judgment(RECORD, (forward, forward), **MADE)
    new = merging.judgment(old, verdicts.overflow_verdict(FORWARD), keep_as="first_", **MADE)
    own = merging.judgment(RECORD, verdicts.overflow_verdict(FORWARD), **MADE)
    added = {f"first_{name}": value for name, value in old.items() if name not in RECORD}
    assert new == {**own, **added}
    third = merging.judgment(new, forward, keep_as="second_", **MADE)
    assert {name: third[name] for name in added} == added


def test_every_field_that_a_judgment_adds_is_one_of_the_declared() -> None:
    grid = distributions.grid("1:10:1")
    made = distributions.from_log_probabilities(np.log(np.full(100, 0.01)), grid, FORWARD)
    forward = verdicts.verdict_from_distribution(made, "1 1", FORWARD, (0, 0))
    back = verdicts.verdict_from_distribution(made, "1 1", REVERSED, (0, 0))
    of_three = [verdicts.verdict_from_text("1 2 3", order, "stop", (0, 0, 0)) for order in ((1, 2, 3), (3, 1, 2))]
    added: set[str] = set()
    factors = distributions.from_log_probabilities(np.log(np.full((3, 10), 0.1)), grid, (1, 2, 3))
    chained = verdicts.verdict_from_distribution(factors, "1 1 1", (1, 2, 3), (0, 0, 0))
    alone = distributions.from_log_probabilities(np.log(np.full(10, 0.1)), grid, (1,))
    graded = verdicts.verdict_from_distribution(alone, "1", (1,), (0,))
    two_by_two, by_pairs = all_pairs.conclude(3, [(forward, back)] * 3)
    for verdict in (forward, (forward, back), of_three, chained, graded, two_by_two):
        more = by_pairs if verdict is two_by_two else {}
        own = merging.judgment(RECORD, verdict, more=more, **MADE).keys() - RECORD.keys()
        assert own <= set(merging.OUTPUT_FIELDS)
        added |= own
    # These are of `judge --calibration`, of presets, of single kinds, and of answers that are judged two by two.
    of_kinds = {"reference_used", "soft_score", "alternatives", "pairs", "ranked_by", "strengths"}
    others = {"calibrated", "pred_preset", *of_kinds}
    assert added | others == set(merging.OUTPUT_FIELDS)


THREE = ((1, 2, 3), (3, 1, 2), (2, 3, 1))


def test_the_scores_of_three_answers_are_ranked_and_averaged_over_arrangements() -> None:
    texts = ("8 6 8\nAll are fine.", "9 8 4", "5.5 9 8")  # in the order that was shown
    one, two, three = (
        verdicts.verdict_from_text(text, order, "stop", cut)
        for text, order, cut in zip(texts, THREE, ((0, 0, 0), (0, 2, 0), (1, 0, 0)), strict=True)
    )
    assert [verdict.scores for verdict in (one, two, three)] == [(8, 6, 8), (8, 4, 9), (8, 5.5, 9)]
    row = merging.judgment(RECORD, (one, two, three), **MADE)
    assert row["scores"] == pytest.approx([8, 15.5 / 3, 26 / 3])
    assert (row["ranking"], row["winner"], row["order"]) == ([[3], [1], [2]], 3, "arrangements")
    assert (row["status"], row["truncated"], row["pred_text"]) == ("truncated", [1, 2, 0], texts[0])
    assert [entry["order"] for entry in row["arrangements"]] == [list(order) for order in THREE]
    assert [entry["winner"] for entry in row["arrangements"]] == [0, 3, 3]
    shown_means = [22.5 / 3, 23 / 3, 20 / 3]
    assert row["position_effects"] == pytest.approx([mean - 65.5 / 9 for mean in shown_means])
    alone = merging.judgment(RECORD, one, **MADE)
    assert (alone["scores"], alone["ranking"], alone["winner"]) == ([8, 6, 8], [[1, 3], [2]], 0)
    assert len(alone["arrangements"]) == 1
    assert "position_effects" not in alone
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("bad", ["unparsed", "overflow"])
def test_without_scores_in_one_arrangement_there_is_no_ranking(bad: str) -> None:
    good = verdicts.verdict_from_text("8 6 8", THREE[0], "stop", (0, 0, 0))
    other = {
        "unparsed": verdicts.verdict_from_text("8 6", THREE[1], "length", (0, 0, 0)),
        "overflow": verdicts.overflow_verdict(THREE[1]),
    }[bad]
    row = merging.judgment(RECORD, (good, other), **MADE)
    assert row["status"] == bad
    assert [row[name] for name in ("scores", "ranking", "winner", "position_effects")] == [None] * 4


def test_one_answer_has_a_score_and_nothing_to_win() -> None:
    row = merging.judgment(RECORD, verdicts.verdict_from_text("10 7\nwhy", (1,), "stop", (0,), GRADE), **MADE)
    assert (row["scores"], row["pred_text"], row["explanation"]) == ([7], "10 7\nwhy", "why")
    assert not {"winner", "ranking", "probabilities"} & row.keys()
    assert verdicts.verdict_from_text("10 7 8", (1,), "stop", (0,), GRADE).status == "unparsed"
    grid = ("1", "5.5", "10")
    made = distributions.from_log_probabilities(np.log([0.1, 0.1, 0.3]), grid, (1,))
    graded = merging.judgment(RECORD, verdicts.verdict_from_distribution(made, "10", (1,), (0,)), **MADE)
    assert graded["score_probabilities"] == pytest.approx({"1": 0.2, "5.5": 0.2, "10": 0.6})
    assert graded["expected_scores"] == pytest.approx([0.2 + 1.1 + 6])
    assert not {"winner", "ranking", "probabilities"} & graded.keys()


def test_verdicts_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        SINGLE["ok"].winner = 2  # type: ignore[misc]
    assert isinstance(SINGLE["ok"], Verdict)
