"""What is shown of a record: a pure function, with the probabilities that the config names."""

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from judgelm_jax.data.augmentation import Example, Variant, augment, example_of, swap, swap_judgment, uniform
from judgelm_jax.training_config import DataConfig
from judgelm_jax.verdicts import score_lines

RECORD: dict[str, Any] = {
    "question_id": 3,
    "question_body": "Which?\n",
    "answer1_body": "one",
    "answer2_body": "two",
    "answer1_model_id": "m1",
    "answer2_model_id": "m2",
    "answer1_metadata": {"k": 1},
    "answer2_metadata": {"k": 2},
    "answer2_id": "only the second has one",
    "text": "8 6.5\nAssistant 1 is better.",
    "score": [8.0, 6.5],
    "reference": {"text": "the truth"},
    "text_w_reference": "1 10\n\nAssistant 2 is better by the reference.",
    "score_w_reference": [1, 10],
    "category": "kept",
}
ALWAYS = DataConfig(swap_augmentation=1.0, reference_drop=0.0)


def test_all_that_belongs_to_an_answer_is_exchanged() -> None:
    assert swap(RECORD) == {
        "question_id": 3,
        "question_body": "Which?\n",
        "answer1_body": "two",
        "answer2_body": "one",
        "answer1_model_id": "m2",
        "answer2_model_id": "m1",
        "answer1_metadata": {"k": 2},
        "answer2_metadata": {"k": 1},
        "answer1_id": "only the second has one",
        "text": "6.5 8\nAssistant 2 is better.",
        "score": [6.5, 8.0],
        "reference": {"text": "the truth"},
        "text_w_reference": "10 1\n\nAssistant 1 is better by the reference.",
        "score_w_reference": [10, 1],
        "category": "kept",
    }


@pytest.mark.parametrize(
    ("variant", "answers", "reference", "target"),
    [
        (Variant(False, False), ("one", "two"), None, "8 6.5\nAssistant 1 is better."),
        (Variant(True, False), ("two", "one"), None, "6.5 8\nAssistant 2 is better."),
        (Variant(False, True), ("one", "two"), "the truth", "1 10\n\nAssistant 2 is better by the reference."),
        (Variant(True, True), ("two", "one"), "the truth", "10 1\n\nAssistant 1 is better by the reference."),
    ],
)
def test_text_reference_and_answers_belong_together(
    variant: Variant, answers: tuple[str, str], reference: str | None, target: str
) -> None:
    assert example_of(RECORD, variant) == Example("3", "Which?\n", answers, reference, target, False)


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("8 6.5", "6.5 8"),
        ("10 10\n", "10 10\n"),
        (" 8,  6.50 \r\nAssistant 1", " 6.50,  8 \r\nAssistant 2"),
        ("8/10 7 / 10\nx", "7 / 10 8/10\nx"),
        ("7.\t0\n", "0\t7.\n"),
        ("9 6\nThe second one is worse.", "6 9\n"),
    ],
)
def test_scores_are_exchanged_as_they_are_written(text: str, swapped: str) -> None:
    assert swap_judgment(text) == swapped
    assert score_lines.parse_scores(swapped, 2) == score_lines.parse_scores(text, 2)[::-1]  # type: ignore[index]


def test_an_explanation_that_is_given_up_is_told() -> None:
    record = {**RECORD, "text": "8 6.5\nThe latter is worse."}
    assert not example_of(record, Variant(False, False)).explanation_dropped
    dropped = example_of(record, Variant(True, False))
    assert dropped.explanation_dropped
    assert dropped.target == "6.5 8\n"
    assert not example_of({**RECORD, "text": "8 6.5"}, Variant(True, False)).explanation_dropped


SCORES = st.sampled_from([0, 1, 2.5, 7, 10])


@given(
    st.integers() | st.text(),
    st.lists(SCORES, min_size=2, max_size=2),
    st.text(),
    st.booleans(),
    st.integers(0, 2**40),
    st.integers(0, 5),
)
def test_a_record_is_never_changed(
    identity: int | str, scores: list[float], explanation: str, has_reference: bool, seed: int, epoch: int
) -> None:
    record = {**RECORD, "question_id": identity, "score": scores, "text": f"{scores[0]} {scores[1]}\n{explanation}"}
    if not has_reference:
        del record["text_w_reference"]
    before = copy.deepcopy(record)
    first = augment(record, DataConfig(), seed, epoch)
    assert record == before
    assert augment(before, DataConfig(), seed, epoch) == first


def test_drawing_depends_on_each_of_its_arguments_alone() -> None:
    draws = [uniform(*point) for point in itertools.product(range(10), range(10), range(10), ("swap", "reference"))]
    assert len(set(draws)) == len(draws)
    assert 0 <= min(draws) < max(draws) < 1


@pytest.mark.parametrize("swap_probability", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("drop", [0.0, 0.2, 1.0])
def test_probabilities_are_those_of_the_config(swap_probability: float, drop: float) -> None:
    config = DataConfig(swap_augmentation=swap_probability, reference_drop=drop)
    examples = [augment({**RECORD, "question_id": n}, config, seed=1, epoch=epoch) for n in range(1000) for epoch in range(3)]
    swapped = [example.answers == ("two", "one") for example in examples]
    with_reference = [example.reference is not None for example in examples]
    # Each alone, and no less where the other happened: they are drawn independently.
    for happened, probability in ((swapped, swap_probability), (with_reference, 1 - drop)):
        assert binomtest(sum(happened), len(happened), probability).pvalue > 1e-4
    both = sum(one and other for one, other in zip(swapped, with_reference, strict=True))
    assert binomtest(both, len(examples), swap_probability * (1 - drop)).pvalue > 1e-4
    # A record's draws in two epochs are independent too.
    again = sum(one and other for one, other in zip(swapped[::3], swapped[1::3], strict=True))
    assert binomtest(again, 1000, swap_probability**2).pvalue > 1e-4


def test_without_support_or_judgment_there_is_no_reference() -> None:
    off = DataConfig(reference_support=False, reference_drop=0.0)
    without = {name: value for name, value in RECORD.items() if not name.endswith("_w_reference")}
    for epoch in range(20):
        assert augment(RECORD, off, 0, epoch).reference is None
        assert augment(without, ALWAYS, 0, epoch).reference is None
        assert augment(RECORD, ALWAYS, 0, epoch).reference == "the truth"


def test_the_real_row_in_all_variants(shared: Path) -> None:
    record = json.loads((shared / "data/reviews/judgelm_100k_one_row.jsonl").read_text(encoding="utf-8"))
    lines = {
        variant: example_of(record, Variant(*variant)).target.split("\n", 1)
        for variant in itertools.product((False, True), (False, True))
    }
    assert {variant: line[0] for variant, line in lines.items()} == {
        (False, False): "1 10",
        (False, True): "1 5",
        (True, False): "10 1",
        (True, True): "5 1",
    }
    assert lines[True, True][1].strip().startswith("Assistant 2's response is completely irrelevant")
