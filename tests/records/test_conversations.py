"""Chats as pairs: what is shown of turns, what is refused."""

import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.kinds import KINDS
from judgelm_jax.presets import kind_of
from judgelm_jax.prompts import prompts
from judgelm_jax.records.conversations import check_conversations, render, replies_of, turns_of


def chat(*texts, system=None):
    said = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    return [] + ([{"role": "system", "content": system}] if system else []) + said


def record(one, other, **fields):
    return {"question_id": 1, "conversation_1": one, "conversation_2": other, **fields}


TWO = record(chat("Why?", "A.", "Really?", "Yes."), chat("Why?", "B.", "Really?", "No."))


def prompt(row, **settings):
    kind = kind_of("conversation", **settings)
    (case,) = kind.cases_of(row, None, "auto")
    return kind.prompt(case, case.answers)


def test_one_turn_is_the_plain_pair():
    row = record(chat("Why?", "A."), chat("Why?", "B."), references=["C."])
    assert prompt(row) == prompt(row, turns="all") == prompts.render("pair", "Why?", ["A.", "B."], "C.")


def test_turns_are_numbered_and_the_last_is_judged_unless_all_are():
    users, one, two = "[Turn 1]\nWhy?\n\n[Turn 2]\nReally?", "[Turn 1]\nA.\n\n[Turn 2]\nYes.", "[Turn 1]\nB.\n\n[Turn 2]\nNo."
    last = f"{users}\n\n[Only the replies to the last turn are judged; earlier ones are shown as context.]"
    assert prompt(TWO) == prompts.render("pair", last, [one, two], None)
    assert prompt(TWO, turns="all") == prompts.render("pair", users, [one, two], None)
    known = {**TWO, "references": [None, "Sure."]}
    assert prompt(known, turns="all") == prompts.render("pair", users, [one, two], "[Turn 2]\nSure.")


def test_a_system_stands_first_and_the_oldest_turns_are_left_out_first():
    row = record(
        chat("Why?", "A.", "Really?", "Yes.", system="Be kind."), chat("Why?", "B.", "Really?", "No.", system="Be kind.")
    )
    rendered = render(*turns_of(row), "all", 1)
    assert rendered.question == "[System]\nBe kind.\n\n[earlier turns left out]\n\n[Turn 2]\nReally?"
    assert rendered.answers == ("[Turn 2]\nYes.", "[Turn 2]\nNo.")
    (case,) = KINDS["conversation"].cases_of(row, None, "auto")
    assert [one.answers for one in case.shorter] == [rendered.answers]
    assert all(one.wording is not None for one in case.shorter)
    assert replies_of(row) == ["A.\n\nYes.", "B.\n\nNo."]
    assert replies_of({"conversation_1": "x"}) == []


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (record(chat("Why?", "A."), None), "'conversation_2' is no list of messages"),
        (record([], chat("Why?", "A.")), "'conversation_1' is no list of messages"),
        (record(chat(" ", "A."), chat(" ", "A.")), "message 1 is empty"),
        (record([{"role": "user", "content": None}], chat("Why?", "A.")), "message 1 is empty, or its 'content' is no text"),
        (record(["Why?"], chat("Why?", "A.")), "message 1 is no object"),
        (record(chat("Why?"), chat("Why?", "A.")), "ends without a reply"),
        (record(chat("Why?", "A.", "So?"), chat("Why?", "A.")), "ends without a reply"),
        (record(chat("Why?", "A.")[::-1], chat("Why?", "A.")), "message 1 is of the role 'assistant' where 'user'"),
        (record(chat("", "A.", system="x")[1:], chat("Why?", "A.")), "message 1 is empty"),
        (record([{"role": "tool", "content": "x"}], chat("Why?", "A.")), "role 'tool' where 'user'"),
        (record(chat("Why?", "A.", system="Be kind."), chat("Why?", "A.")), "say different things"),
        (record(chat("Why?", "A."), chat("How?", "A.")), "say different things"),
        (record(chat("Why?", "A."), chat("Why?", "A."), references=["a", "b"]), "2 references for 1 turns"),
        (record(chat("Why?", "A."), chat("Why?", "A."), references="a"), "no list of texts or nulls"),
        ({"question_id": 1, "question_body": "q", "answer1_body": "a"}, "judge it with another --kind"),
        ({**TWO, "reference": 3}, "'reference' is no text"),
        ({**TWO, "reference": {"text": ["a"]}}, "'reference' is no text"),
        ({**TWO, "conversation_3": TWO["conversation_1"]}, "remove 'conversation_3'"),
        ({**TWO, "question_id": None}, "'question_id' is missing"),
    ],
)
def test_what_is_no_pair_of_chats_is_named(row, expected):
    with pytest.raises(InputError) as raised:
        check_conversations(row)
    assert expected in str(raised.value)


def test_a_model_that_says_nothing_is_judged():
    assert prompt(record(chat("Why?", ""), chat("Why?", "B."))) == prompts.render("pair", "Why?", ["", "B."], None)


def test_turns_are_of_conversations():
    with pytest.raises(InputError, match="--turns=all is for conversations"):
        kind_of("pair", turns="all")
    assert "[INST]" in prompt(TWO, preset="auto_j")
