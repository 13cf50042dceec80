"""Kinds end to end: what is shown, what is written, and what does not depend on the order of answers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judging.stub_engine import record, stub_judge

from judgelm_jax.errors import InputError
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.kinds import KINDS
from judgelm_jax.prompts import prompts
from judgelm_jax.tokens.tokenization import load_tokenizer
from judgelm_jax.verdicts.verdicts import Verdict

QUALITIES = st.lists(st.sampled_from([1, 2, 3.5, 4, 5, 6]), min_size=3, max_size=5)


@pytest.fixture(scope="module")
def tokenizer(laboratory_checkpoint):
    return load_tokenizer(laboratory_checkpoint)


def judged(judge, *records):
    rows = [judgment.row for judgment in judge.judge(records)]
    for one, row in zip(records, rows, strict=True):
        assert {name: row[name] for name in one} == one
    return rows if len(rows) > 1 else rows[0]


def test_one_answer_is_graded_behind_the_score_of_its_reference(tokenizer):
    judge = stub_judge(tokenizer, kind="single")
    row = judged(judge, record(7, reference="quality 9"))
    assert judge.engine.seen == [prompts.render("single", "How good?", ["quality 9", "quality 7"], None)]
    assert (row["scores"], row["pred_text"], row["explanation"]) == ([7], "10 7\nBecause of the rule.", "Because of the rule.")
    assert (row["reference_used"], row["order"], row["status"], row["truncated"]) == (True, "arrangements", "ok", [0])
    assert [entry["order"] for entry in row["arrangements"]] == [[1]]
    assert not {"winner", "ranking", "position_effects"} & row.keys()


def test_the_published_form_brings_the_good_answer_and_shows_its_reference(tokenizer):
    judge = stub_judge(tokenizer, kind="single")
    row = judged(judge, record(9, 7, reference="the truth"))
    assert judge.engine.seen == [prompts.render("single", "How good?", ["quality 9", "quality 7"], "the truth")]
    assert (row["scores"], row["reference_used"]) == ([7], True)
    without = stub_judge(tokenizer, kind="single", reference="none")
    assert judged(without, record(9, 7, reference="the truth"))["reference_used"]  # that of the first slot
    assert without.engine.seen == [prompts.render("single", "How good?", ["quality 9", "quality 7"], None)]


def test_without_reference_the_row_says_so(tokenizer):
    judge = stub_judge(tokenizer, kind="single", reference="none")
    row = judged(judge, record(7, reference="quality 9"))
    assert (row["scores"], row["pred_text"].split("\n")[0], row["reference_used"]) == ([7], "7", False)
    assert "quality 9" not in judge.engine.seen[0]
    with pytest.raises(InputError, match="--reference=none"):
        judged(stub_judge(tokenizer, kind="single"), record(7))


def test_a_reference_is_not_shortened_and_the_graded_answer_is(tokenizer):
    good = "quality 9 " + "because it is so " * 40
    whole = prompts.render("single", "How good?", [good, "quality 7 "], None)
    judge = stub_judge(tokenizer, kind="single", budget=len(tokenizer.encode(whole)) + 60)
    row = judged(judge, {**record(7, reference=good), "answer1_body": "quality 7 " + "and so on " * 400})
    assert (row["status"], row["scores"]) == ("truncated", [7])
    assert row["truncated"][0] > 100
    assert good in judge.engine.seen[0]
    assert judge.engine.seen[0].count("[shortened]") == 1


def test_three_answers_are_ranked(tokenizer):
    row = judged(stub_judge(tokenizer, kind="multi"), record(5, 7, 5))
    assert (row["scores"], row["ranking"], row["winner"], row["order"]) == ([5, 7, 5], [[2], [1, 3]], 2, "arrangements")
    assert row["arrangements"] == [
        {
            "order": [1, 2, 3],
            "pred_text": "5 7 5\nBecause of the rule.",
            "status": "ok",
            "scores": [5, 7, 5],
            "winner": 2,
            "finish": "stop",
            "explanation": "Because of the rule.",
            "truncated": [0, 0, 0],
        }
    ]


@pytest.mark.parametrize(("arrangements", "orders"), [(None, None), (1, "forward"), (2, "both"), ("all", "both")])
def test_two_answers_of_many_are_a_pair(tokenizer, arrangements, orders):
    many = judged(stub_judge(tokenizer, (2, 0), kind="multi", arrangements=arrangements), record(5, 6))
    pair = judged(stub_judge(tokenizer, (2, 0), orders=orders), record(5, 6))
    marks = ("pred_id", "tstamp")
    assert {n: v for n, v in many.items() if n not in marks} == {n: v for n, v in pair.items() if n not in marks}


def reordered(one, order):
    """The record with its answers in another order."""
    return one | {f"answer{place}_body": one[f"answer{number}_body"] for place, number in enumerate(order, start=1)}


def of_reordered(row, order):
    """Scores, ranking and winner of a record that must be those of `row` with its answers in another order."""
    new = {number: place for place, number in enumerate(order, start=1)}
    return (
        [row["scores"][number - 1] for number in order],
        [sorted(new[number] for number in group) for group in row["ranking"]],
        new.get(row["winner"], 0),
    )


@given(QUALITIES, st.lists(st.integers(0, 3), min_size=5, max_size=5), st.data())
def test_rotating_the_answers_rotates_the_verdict_of_a_whole_square(tokenizer, qualities, preference, data):
    judge = stub_judge(tokenizer, preference, kind="multi", arrangements=len(qualities))
    one = record(*qualities)
    shift = data.draw(st.integers(0, len(qualities) - 1))
    order = tuple((place + shift) % len(qualities) + 1 for place in range(len(qualities)))
    row, turned = judged(judge, one, {**reordered(one, order), "question_id": "another"})
    assert (turned["scores"], turned["ranking"], turned["winner"]) == of_reordered(row, order)
    assert turned["position_effects"] == pytest.approx(row["position_effects"])
    # And the preference for positions is gone: the ranking is that of the qualities.
    means = [quality + sum(preference[: len(qualities)]) / len(qualities) for quality in qualities]
    assert row["scores"] == pytest.approx(means)
    levels = sorted(set(qualities), reverse=True)
    assert row["ranking"] == [[n for n, quality in enumerate(qualities, 1) if quality == level] for level in levels]
    mean = sum(preference[: len(qualities)]) / len(qualities)
    assert row["position_effects"] == pytest.approx([worth - mean for worth in preference[: len(qualities)]])


@given(
    st.lists(st.sampled_from([1, 2, 3.5, 4, 5, 6]), min_size=2, max_size=4),
    st.lists(st.integers(0, 3), min_size=4, max_size=4),
    st.randoms(use_true_random=False),
)
def test_permuting_the_answers_permutes_the_verdict_of_all_orders(tokenizer, qualities, preference, random):
    judge = stub_judge(tokenizer, preference, kind="multi", arrangements="all")
    one = record(*qualities)
    order = tuple(random.sample(range(1, len(qualities) + 1), len(qualities)))
    row, other = judged(judge, one, {**reordered(one, order), "question_id": "another"})
    if len(qualities) == 2:
        assert (other["scores"], other["winner"], other["consistent"]) == (
            [row["scores"][number - 1] for number in order], {0: 0, order[0]: 1, order[1]: 2}[row["winner"]], row["consistent"],
        )  # fmt: skip
        return
    assert (other["scores"], other["ranking"], other["winner"]) == of_reordered(row, order)
    assert other["position_effects"] == row["position_effects"]  # to the last bit
    assert len(row["arrangements"]) == {3: 6, 4: 24}[len(qualities)]


def test_records_of_different_numbers_of_answers_go_together(tokenizer):
    rows = judged(stub_judge(tokenizer, kind="multi"), *(
        record(*range(1, count + 1), question_id=count) for count in (3, 2, 9, 4)
    ))  # fmt: skip
    assert [row["scores"] for row in rows] == [[1, 2, 3], [1, 2], [*range(1, 10)], [1, 2, 3, 4]]


def test_answers_that_do_not_fit_together_are_judged_two_by_two(tokenizer):
    long = " and so on" * 60
    one = record(3, 6, 5, 6)
    one |= {name: value + long for name, value in one.items() if name.endswith("_body") and name.startswith("answer")}
    short = {**record(3, 6, 5), "question_id": "short"}
    answers = [one[f"answer{number}_body"] for number in range(1, 5)]
    whole = len(tokenizer.encode(prompts.render("multi", "How good?", answers, None)))
    judge = stub_judge(tokenizer, (1, 0), budget=whole, kind="multi", on_overflow="pairs")  # and BOS
    row, whole = judged(judge, one, short)
    assert (whole["order"], whole["scores"]) == ("arrangements", [4, 6, 5])  # one prompt, so the preference stays
    assert (row["order"], row["ranked_by"], row["status"], row["arrangements"]) == ("pairs", "bradley_terry", "ok", [])
    assert row["scores"] == pytest.approx([3.5, 6.5, 5.5, 6.5])
    assert (row["ranking"], row["winner"]) == ([[2, 4], [3], [1]], 0)
    assert sum(row["strengths"]) == pytest.approx(0, abs=1e-5)
    assert [strength == max(row["strengths"]) for strength in row["strengths"]] == [False, True, False, True]
    shown = [tuple(entry["order"]) for entry in row["pairs"]]
    assert sorted(shown) == sorted(itertools.permutations(range(1, 5), 2))  # every pair in both orders
    assert {tuple(entry["answers"]) for entry in row["pairs"]} == set(itertools.combinations(range(1, 5), 2))
    for entry in row["pairs"]:
        assert entry["winner"] in (0, *entry["order"])
    assert row["truncated"] == [0, 0, 0, 0]
    pair = len(tokenizer.encode(prompts.render("multi", "How good?", answers[:2], None)))
    tight = judged(stub_judge(tokenizer, budget=pair - 20, kind="multi", on_overflow="pairs"), one)
    assert (tight["order"], tight["status"]) == ("pairs", "truncated")
    assert all(tight["truncated"])


@given(st.lists(st.integers(1, 6), min_size=3, max_size=6), st.randoms(use_true_random=False))
def test_two_by_two_ranks_as_counting_wins_does(tokenizer, qualities, random):
    """In a complete tournament the order of the strengths is that of the points (Bühlmann & Huber 1963)."""
    judge = stub_judge(tokenizer, budget=1, kind="multi", on_overflow="pairs")
    judge.engine.prompt_budget = lambda form: 10**6 if form.count == 2 else 1
    row = judged(judge, record(*qualities))
    points = [sum((one > other) + (one == other) / 2 for other in qualities) for one in qualities]
    levels = sorted(set(points), reverse=True)
    assert row["ranking"] == [[n for n, own in enumerate(points, 1) if own == level] for level in levels]
    order = tuple(random.sample(range(1, len(qualities) + 1), len(qualities)))
    other = judged(judge, {**reordered(record(*qualities), order)})
    assert (other["scores"], other["ranking"], other["winner"]) == of_reordered(row, order)


@pytest.mark.parametrize(
    ("settings", "one", "says"),
    [
        ({"kind": "multi", "arrangements": 4}, record(1, 2, 3), "--arrangements=4 is more than the 3 answers"),
        ({"kind": "multi", "arrangements": "all"}, record(1, 2, 3, 4, 5), "at most 4 answers; this record has 5"),
        ({"kind": "multi", "orders": "both"}, record(1, 2, 3), "--orders=both is of two answers"),
        ({"kind": "single", "orders": "both"}, record(1, reference="r"), "--orders=both is of two answers"),
        ({"kind": "single", "arrangements": 2}, record(1, reference="r"), "--arrangements=2 is more than the 1"),
    ],
)
def test_what_does_not_go_together_is_refused(tokenizer, settings, one, says):
    with pytest.raises(InputError, match=says):
        judged(stub_judge(tokenizer, **settings), one)


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.answers[1] is not None])
def test_only_many_answers_are_judged_two_by_two(kind):
    with pytest.raises(InputError, match="on_overflow=pairs judges many answers"):
        JudgeConfig(kind=kind, on_overflow="pairs")


def test_the_best_alternative_of_a_ground_truth_counts(tokenizer):
    judge = stub_judge(tokenizer, kind="multimodal")
    truth = "quality 9 <OR>quality 8<AND>quality 3"
    row = judged(judge, record(7, reference=truth, capability=["ocr", "math"]))
    shown = [
        prompts.render("multimodal", "How good?", [text, "quality 7"], text)
        for text in ("quality 9", "quality 8 and quality 3")
    ]
    assert sorted(judge.engine.seen) == sorted(shown)
    assert (row["scores"], row["soft_score"], row["status"], row["capability"]) == ([7], 0.7, "ok", ["ocr", "math"])
    assert [entry["reference"] for entry in row["alternatives"]] == ["quality 9", "quality 8 and quality 3"]
    assert [entry["score"] for entry in row["alternatives"]] == [7, 7]
    assert "winner" not in row
    with pytest.raises(InputError, match="judged by its ground truth"):
        judged(judge, record(7))


def test_alternatives_without_a_verdict_count_as_nothing():
    (good, bad), kind = (verdict([4.0]), verdict(None)), KINDS["multimodal"]
    cases = kind.cases_of(record(7, reference="a<OR>b<OR>c"), "a<OR>b<OR>c", "auto")
    own, more = kind.conclude(cases, [[bad], [good], [verdict([4.0])]])
    assert own == [good]
    assert more["soft_score"] == 0.4
    assert [entry["score"] for entry in more["alternatives"]] == [None, 4, 4]
    assert kind.conclude(cases, [[bad]] * 3)[1]["soft_score"] is None


def verdict(scores):
    return Verdict("unparsed" if scores is None else "ok", scores, None, (1,), "", "", "stop", (0,))


def test_chats_are_judged_without_their_oldest_turns_where_they_are_too_long(tokenizer):
    def chat(quality):
        texts = ["How good?", f"quality {quality} " + "and so on " * 60, "And now?", f"quality {quality}"]
        return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]

    row = {"question_id": 1, "conversation_1": chat(7), "conversation_2": chat(5)}
    long = stub_judge(tokenizer, kind="conversation", orders="both")
    whole = judged(long, row)
    assert (whole["scores"], whole["winner"], whole["order"], whole["truncated"]) == ([7, 5], 1, "both", [0, 0])
    tokens = len(tokenizer.encode(long.engine.seen[0]))
    short = stub_judge(tokenizer, kind="conversation", orders="both", budget=tokens - 50)
    cut = judged(short, row)
    assert "[earlier turns left out]" in short.engine.seen[0]
    assert "and so on" not in short.engine.seen[0]
    assert (cut["scores"], cut["status"]) == ([7, 5], "truncated")
    assert min(cut["truncated"]) > 60
    skipped = stub_judge(tokenizer, kind="conversation", on_overflow="skip", budget=tokens - 50)
    assert judged(skipped, row)["status"] == "overflow"
