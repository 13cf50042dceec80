"""The judge from Python: calls with settings of their own, cards, threads, `async for`, and a scorer of inspect_ai."""

import asyncio
import concurrent.futures
import dataclasses
import pickle

import pytest

from judgelm_jax import Judge, Judgment, laboratory
from judgelm_jax.errors import InputError
from judgelm_jax.judging.config import JudgeConfig

QUESTION, ANSWERS = "Which is a prime?", ["Two.", "Four.", "Nine."]


@pytest.fixture(scope="module")
def judge(laboratory_checkpoint, one_device):
    return Judge.load(str(laboratory_checkpoint), one_device, JudgeConfig(dtype="float32"))


def without_ids(row):
    return {name: value for name, value in row.items() if name not in ("pred_id", "tstamp")}


def test_settings_of_a_call_are_those_of_a_judge_that_was_loaded_so(judge, laboratory_checkpoint, one_device):
    records = [pair.record for pair in laboratory.make_pairs(3, seed=1)]
    settings = JudgeConfig(dtype="float32", mode="distribution", orders="both")
    loaded = Judge.load(str(laboratory_checkpoint), one_device, settings)
    expected = [without_ids(judgment.row) for judgment in loaded.judge(records)]
    found = [without_ids(judgment.row) for judgment in judge.judge(records, mode="distribution", orders="both")]
    assert found == expected
    asked = judge.asked(dataclasses.replace(judge.settings, mode="distribution", orders="both"))
    assert asked is judge.asked(settings)
    assert asked.engine.params is judge.engine.params
    programs = asked.engine.counts.programs
    assert list(judge.judge(records, mode="distribution", orders="both"))
    assert asked.engine.counts.programs == programs  # compiled once
    assert [judgment.row["order"] for judgment in judge.judge(records)] == ["forward"] * 3


def test_a_judge_whose_explanations_have_an_int8_cache_gives_scores_too(judge):
    records = [pair.record for pair in laboratory.make_pairs(2, seed=1)]
    explains = judge.asked(dataclasses.replace(judge.settings, mode="explain", cache_dtype="int8"))
    found = [without_ids(judgment.row) for judgment in explains.judge(records, mode="scores")]
    assert found == [without_ids(judgment.row) for judgment in judge.judge(records)]


def test_comparing_grading_and_ranking(judge):
    pair = judge.compare(QUESTION, *ANSWERS[:2], mode="distribution")
    assert pair.row["order"] == "both"
    assert sum(pair.probabilities.values()) == pytest.approx(1)
    assert judge.compare(QUESTION, *ANSWERS[:2], orders="reversed").row["order"] == "reversed"
    graded = judge.grade(QUESTION, "Two.", "Two is one.")
    assert len(graded.scores) == 1
    assert graded.row["reference_used"]
    assert not judge.grade(QUESTION, "Two.").row["reference_used"]
    ranked = judge.rank(QUESTION, ANSWERS, arrangements=3)
    assert sorted(number for group in ranked.ranking for number in group) == [1, 2, 3]
    assert len(ranked.row["arrangements"]) == 3
    with pytest.raises(InputError, match="there are 1 answers"):
        judge.rank(QUESTION, ANSWERS[:1])
    with pytest.raises(InputError, match="load the judge anew for bfloat16"):
        judge.asked(dataclasses.replace(judge.settings, dtype="bfloat16"))


def test_what_a_judge_was_loaded_for_does_not_stand_in_the_way_of_a_call(judge):
    of_many = judge.asked(dataclasses.replace(judge.settings, kind="multi", arrangements=3))
    assert of_many.compare(QUESTION, *ANSWERS[:2]).row["order"] == "both"
    assert len(of_many.grade(QUESTION, "Two.").scores) == 1
    of_chats = judge.asked(dataclasses.replace(judge.settings, kind="conversation", turns="all", orders="both"))
    assert of_chats.rank(QUESTION, ANSWERS).ranking is not None
    in_both_orders = judge.asked(dataclasses.replace(judge.settings, orders="both"))
    assert len(in_both_orders.rank(QUESTION, ANSWERS, arrangements=2).row["arrangements"]) == 2


def test_what_is_no_string_is_named(judge):
    for call in (
        lambda: judge.compare(None, "a", "b"),
        lambda: judge.compare("q", "a", 5),
        lambda: judge.rank("q", ["a", b"b"]),
        lambda: judge.grade("q", ["a"]),
    ):
        with pytest.raises(TypeError, match=r"^(the question|answer [12]) is of type (NoneType|int|bytes|list); it must be"):
            call()


def test_a_record_that_is_none_is_named_by_its_number(judge):
    good = {"question_id": 1, "question_body": "q", "answer1_body": "a", "answer2_body": "b"}
    for wrong, says in (
        ({"question_id": 2}, "record 1: the field 'question_body' is missing"),
        (good | {"question_id": 2, "answer3_body": "c"}, "record 1: there are 3 answers where 2 are judged; .* --kind=multi"),
    ):
        with pytest.raises(InputError, match=says):
            list(judge.judge([good, wrong]))


def test_a_preset_says_nothing_of_further_questions(judge):
    asked = judge.asked(dataclasses.replace(judge.settings, preset="pandalm"))
    with pytest.raises(InputError, match="'pandalm' says nothing of further questions"):
        asked.chat(asked.compare(QUESTION, *ANSWERS[:2]))


def test_threads_get_what_one_after_another_gets(judge):
    questions = [f"{QUESTION} {number}" for number in range(6)]
    expected = [without_ids(judge.compare(question, *ANSWERS[:2]).row) for question in questions]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda question: without_ids(judge.compare(question, *ANSWERS[:2]).row), questions))
    assert found == expected


def test_judgments_come_to_an_event_loop(judge):
    records = [pair.record for pair in laboratory.make_pairs(2, seed=1)]

    async def collect():
        return [judgment.scores async for judgment in judge.judge_async(records)]

    assert asyncio.run(collect()) == [judgment.scores for judgment in judge.judge(records)]


ROW = {
    "status": "truncated",
    "scores": [8.0, 6.5],
    "winner": 1,
    "consistent": False,
    "explanation": "<script>alert(1)</script>\nbecause " + "of it " * 100,
    "probabilities": {"0": 0.1, "1": 0.7, "2": 0.2},
    "expected_scores": [7.5, 6.25],
}


def test_a_judgment_is_a_card():
    judgment = Judgment(ROW)
    card = repr(judgment)
    assert card.splitlines()[0].split() == ["verdict", "answer", "1"]
    assert "tie 10.0%, answer 1 70.0%, answer 2 20.0%" in card
    assert "name different winners" in card
    assert max(map(len, card.splitlines())) < 230
    page = judgment._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert pickle.loads(pickle.dumps(judgment)) == judgment
    copy = judgment.to_dict()
    copy["winner"] = 2
    assert judgment.winner == 1
    ranked = Judgment({"status": "ok", "scores": [1, 3, 3], "ranking": [[2, 3], [1]], "explanation": ""})
    assert repr(ranked).splitlines()[0].endswith("2 = 3 > 1")
    assert repr(Judgment({"status": "unparsed", "scores": None, "winner": None, "explanation": ""})).startswith("verdict  none")


def test_inspect_ai_scores_with_a_judge(judge):
    """Its own states and targets; a whole `eval` fetches a vocabulary from the network first."""
    pytest.importorskip("inspect_ai")
    from inspect_ai.model import ModelName, ModelOutput
    from inspect_ai.scorer import Score, Target
    from inspect_ai.solver import TaskState

    from judgelm_jax import judge_scorer

    scorer = judge_scorer(judge)
    for question, answer, reference in ((QUESTION, "Two.", "Two is one."), ("Why?", "Because.", None)):
        output = ModelOutput.from_content("mock", answer)
        state = TaskState(ModelName("mockllm/model"), 1, 1, question, [], output=output)
        score = asyncio.run(scorer(state, Target(reference or "")))
        graded = judge.grade(question, answer, reference)
        assert isinstance(score, Score)
        assert (score.value, score.answer) == (graded.scores[0] / 10, answer)
        assert score.explanation == graded.row["pred_text"]
