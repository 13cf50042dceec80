"""Exchanged explanations are held against texts that were written for the other order."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.data.wording import exchange

NAMES = [
    ("Assistant 1", "Assistant 2"),
    ("assistant 1", "assistant 2"),
    ("ASSISTANT 1", "ASSISTANT 2"),
    ("Assistant one", "Assistant two"),
    ("Assistant One", "Assistant Two"),
    ("Assistant A", "Assistant B"),
    ("Assistant I", "Assistant II"),
    ("Assistant #1", "Assistant #2"),
    ("Assistant No. 1", "Assistant No. 2"),
    ("Assistant number 1", "Assistant number 2"),
    ("Assistant1", "Assistant2"),
    ("Assistant-1", "Assistant-2"),
    ("**Assistant** 1", "**Assistant** 2"),
    ("Assitant 1", "Assitant 2"),
    ("AI 1", "AI 2"),
    ("AI assistant 1", "AI assistant 2"),
    ("Chatbot A", "Chatbot B"),
    ("Answer 1", "Answer 2"),
    ("answer #1", "answer #2"),
    ("Answer B", "Answer A"),
    ("Response 1", "Response 2"),
    ("response 2", "response 1"),
    ("Response One", "Response Two"),
    ("Reply 1", "Reply 2"),
    ("the first answer", "the second answer"),
    ("the second assistant", "the first assistant"),
    ("The First Response", "The Second Response"),
    ("the 1st response", "the 2nd response"),
    ("the first AI assistant", "the second AI assistant"),
]
SENTENCES = [
    "{0} is better than {1}.",
    "{0}'s code is clear, while {1}’s is not.",
    "Both {0} and {1} receive 9 and 6, respectively.",
    "{0}: 8/10\n{1}: 7.5/10",
    "**{0}:** good; **{1}:** bad.",
    "I prefer {1} over {0}!",
    "Between ({0}) and ({1}) there is no difference.",
    "First, {0} is right. Second, {1} is wrong.",
]
# What has numbers, letters and ordinals of its own and says nothing about the order of the answers.
NEUTRAL = [
    "Both assistants did well.",
    "The other assistant did not.",
    "It takes O(n^2) and returns 1 for n = 2.",
    "There are 20 flashes per second.",
    "On a scale of 1 to 10 this is a 2.",
    "Weaknesses:\n1. The first row is wrong.\n2. The second element is missing.",
    "Python 2 and Python 3 differ.",
    "One has to solve Earth's problems first.",
    "A queue is first-in, first-out.",
    "It lists 1,972,600 strikes and 2.5 billion words.",
    "A better one is dp[i-1][j-1] + 1.",
    "See Chapter 2. It was the first song ever recorded.",
]
UNSAFE = [
    "The second is better.",
    "The first response is better than the second.",
    "The former is better than the latter.",
    "#1 is better.",
    "1 is better than 2.",
    "A is better.",
    "I like A more than B.",
    "B's answer is long.",
    "Both assistants receive 9 and 6, respectively.",
    "Both receive 9 and 6.",
    "Scores: 9 6",
    "Assistant 1 is good.\n9/10 6/10",
    "Assistant 1's first answer was wrong but its second answer was right.",
    "Assistant 1 gave a second answer.",
    "It answers 1 question.",
    "Assistant 1 forgot to answer 2 of them.",
    "Assistant 1 (8) and 2 (7).",
    "Assistant 1 is better than 2.",
    "Assistant 1 is good. 2, on the other hand, is not.",
    "Assistant 1 took answer B.",
    "Assistant 1 found the answer 2.",
    "Assistants 1, 2",
    "Model 1 is better.",
    "Option A is better, says Assistant 1.",
    "The previous answer was better.",
    "R1 is better.",
    "First: good. Second: bad.",
    "助手1更好",
    "Number one is better.",
]


@given(
    st.sampled_from(NAMES), st.lists(st.sampled_from(SENTENCES), min_size=1), st.lists(st.sampled_from(NEUTRAL)), st.randoms()
)
def test_a_text_becomes_the_one_written_for_the_other_order(
    names: tuple[str, str], sentences: list[str], neutral: list[str], random: Random
) -> None:
    texts = sentences + neutral
    random.shuffle(texts)
    text = "\n\n".join(texts)
    assert exchange(_written(text, *names)) == _written(text, *reversed(names))


def _written(text: str, first: str, second: str) -> str:
    return text.replace("{0}", first).replace("{1}", second)


@pytest.mark.parametrize(
    ("text", "exchanged"),
    [
        ("Assistants 1 and 2 did well.", "Assistants 2 and 1 did well."),
        ("Both Assistant 1 and 2's answers", "Both Assistant 2 and 1's answers"),
        ("Assistant 1's and 2's answers", "Assistant 2's and 1's answers"),
        ("Assistants 1 & 2, Assistant 1/2", "Assistants 2 & 1, Assistant 2/1"),
        ("Neither Assistant 1 nor 2", "Neither Assistant 2 nor 1"),
        ("Answers 1 and 2 are alike.", "Answers 2 and 1 are alike."),
        ("Responses #1 and #2", "Responses #2 and #1"),
        ("Assistants A and B", "Assistants B and A"),
        ("The first and second assistants", "The second and first assistants"),
        ("the first and the second answer", "the second and the first answer"),
        ("Assistant 1 has 2 points and 1 more than Assistant 2.", "Assistant 2 has 2 points and 1 more than Assistant 1."),
        ("Assistant 1 and 2 others", "Assistant 2 and 2 others"),
        ("Assistant 1 first states it.", "Assistant 2 first states it."),
    ],
)
def test_lists_are_exchanged_as_one(text: str, exchanged: str) -> None:
    assert exchange(text) == exchanged


@pytest.mark.parametrize("text", NEUTRAL)
def test_what_names_no_answer_stays(text: str) -> None:
    assert exchange(f"{text}\nAssistant 1 knew. {text}") == f"{text}\nAssistant 2 knew. {text}"


def test_a_text_without_any_name_stays_unless_a_number_in_it_may_be_one() -> None:
    assert exchange("Both assistants gave the same answer.") == "Both assistants gave the same answer."
    assert exchange("") == ""
    assert exchange("Good: 1. Bad: 2.") is None


@pytest.mark.parametrize("text", UNSAFE)
def test_what_may_name_an_answer_is_given_up(text: str) -> None:
    assert exchange(text) is None


@given(
    st.lists(
        st.one_of(
            st.sampled_from(" ".join([*NEUTRAL, *UNSAFE, *(name for pair in NAMES for name in pair)]).split(" ")),
            st.text(max_size=3),
        )
    ).map(" ".join)
)
def test_twice_exchanged_is_the_text_itself(text: str) -> None:
    once = exchange(text)
    assert once is None or exchange(once) == text


def test_in_real_judgments_names_and_only_names_are_exchanged(shared: Path) -> None:
    """Whoever writes nothing but `Assistant 1` and `Assistant 2` can be exchanged by three replacements."""
    texts = [
        json.loads(line)["text"].partition("\n")[2]
        for name in ("gpt4_pairs_train.jsonl", "gpt4_pairs_val.jsonl")
        for line in (shared / "data/reviews" / name).read_text(encoding="utf-8").splitlines()
    ]
    exchanged = [exchange(text) for text in texts]
    assert sum(text is None for text in exchanged) < 0.005 * len(texts)
    compared = 0
    for text, other in zip(texts, exchanged, strict=True):
        if other is None or any(
            f"{ordinal} {noun}" in text.lower()
            for ordinal in ("first", "second")
            for noun in ("assistant", "answer", "response")
        ):
            continue
        expected = text.replace("Assistant 1", "\0").replace("Assistant 2", "Assistant 1").replace("\0", "Assistant 2")
        assert other == expected
        compared += 1
    assert compared > 0.99 * len(texts)
