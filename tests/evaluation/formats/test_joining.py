"""Answers joined into records, and the pairs chosen of them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.formats.answers import Answers
from judgelm_jax.evaluation.formats.joining import chosen_pairs, join_answers, pairs_of
from judgelm_jax.records.records import answers_of


def group(model: str, ids: list[int], **fields: object) -> Answers:
    rows = {str(key): {"question_id": key, "question_body": f"q{key}", "text": f"{model}{key}", **fields} for key in ids}
    return Answers(model, rows, {key: f"{model}.jsonl:{key}" for key in rows})


@given(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True), min_size=1, max_size=4))
def test_an_inner_join_keeps_what_all_answered_and_counts_the_rest(ids: list[list[int]]) -> None:
    groups = [group(f"m{number}", keys) for number, keys in enumerate(ids)]
    shared = set.intersection(*map(set, ids))
    if not shared:
        with pytest.raises(InputError, match="no question in common"):
            join_answers(groups, None, inner=True)
        return
    records, left_out = join_answers(groups, None, inner=True)
    assert [record["question_id"] for record in records] == [key for key in ids[0] if key in shared]
    assert left_out == len(set.union(*map(set, ids)) - shared)
    for record in records:
        assert answers_of(record) == [f"m{number}{record['question_id']}" for number in range(len(ids))]


def test_a_full_join_names_what_is_missing_and_the_way_out() -> None:
    with pytest.raises(InputError, match=r"a\.jsonl:2: question_id '2' is not in the answers of b; .*--join=inner"):
        join_answers([group("a", [1, 2]), group("b", [1])], None, inner=False)


def record(count: int, key: object = 7) -> dict:
    fields = {"question_id": key, "question_body": "q", "category": "c"}
    for number in range(1, count + 1):
        fields |= {f"answer{number}_body": f"t{number}", f"answer{number}_model_id": f"m{number}"}
        fields |= {f"answer{number}_metadata": {}, f"conversation_{number}": [number]}
    return fields


@given(st.integers(2, 7))
def test_all_pairs_are_the_combinations(count: int) -> None:
    pairs = pairs_of(record(count), "all")
    expected = list(itertools.combinations(range(1, count + 1), 2))
    assert [pair["pair_id"] for pair in pairs] == [f"7/{one}-{two}" for one, two in expected]
    for pair, (one, two) in zip(pairs, expected, strict=True):
        assert (pair["answer1_body"], pair["answer2_body"]) == (f"t{one}", f"t{two}")
        assert (pair["conversation_1"], pair["conversation_2"]) == ([one], [two])
        assert (pair["category"], "answer3_body" in pair, "conversation_3" in pair) == ("c", False, False)


def test_a_baseline_stands_first_against_each_other_model() -> None:
    assert list(chosen_pairs(record(4), "baseline:m3")) == [(3, 1), (3, 2), (3, 4)]
    with pytest.raises(InputError, match="the models are m1, m2, m3, m4"):
        list(chosen_pairs(record(4), "baseline:gpt"))


def test_a_baseline_whose_name_two_models_have_is_refused() -> None:
    twins = record(3) | {"answer2_model_id": "m1"}
    with pytest.raises(InputError, match="name one of them"):
        list(chosen_pairs(twins, "baseline:m1"))


@given(st.integers(2, 7), st.integers(1, 25), st.integers())
def test_a_sample_depends_on_the_question_alone(count: int, size: int, key: int) -> None:
    pairs = list(chosen_pairs(record(count, key), f"sample:{size}"))
    assert len(set(pairs)) == len(pairs) == min(size, count * (count - 1) // 2)
    assert pairs == list(chosen_pairs(record(count, str(key)), f"sample:{size}"))


def test_samples_of_many_questions_take_every_pair_about_as_often() -> None:
    drawn = [pair for key in range(3000) for pair in chosen_pairs(record(4, key), "sample:2")]
    for pair in itertools.combinations(range(1, 5), 2):
        assert drawn.count(pair) / 3000 == pytest.approx(2 / 6, abs=0.035)


def test_fields_that_say_nothing_to_the_judge_are_kept() -> None:
    one = group("a", [1], category="math", seed=3, winner=2, answer_id="x", note=None)
    two = group("b", [1], category="math", seed=4, winner=2, tokens=[1, 2])
    (record,), _ = join_answers([one, two], None, inner=False)
    assert record["category"] == "math"
    assert record["answer1_metadata"] == {"seed": 3, "winner": 2, "answer_id": "x"}
    assert record["answer2_metadata"] == {"seed": 4, "winner": 2, "tokens": [1, 2]}
    assert {"seed", "winner", "answer_id", "note", "tokens"}.isdisjoint(record)


def test_a_single_model_keeps_its_fields_too() -> None:
    (record,), _ = join_answers([group("a", [1], category="math", pair_id="p", decoding_method="greedy")], None, inner=False)
    assert (record["category"], "pair_id" in record) == ("math", False)
    assert record["answer1_metadata"] == {"pair_id": "p", "decoding_method": "greedy"}
