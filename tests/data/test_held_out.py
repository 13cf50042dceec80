import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.data.augmentation import Variant, draw_variant, example_of
from judgelm_jax.data.held_out import as_trained, sample
from judgelm_jax.data.training_file import check_training_file
from judgelm_jax.prompts import prompts
from judgelm_jax.records.records import answers_of, reference_of
from judgelm_jax.training_config import DataConfig

ROW = {"question_body": "q", "answer1_body": "a", "answer2_body": "b", "text": "8 6\nx", "score": [8, 6]}


def file_of(folder, questions):
    """A file whose rows belong to these questions; the id of a row is its question and its number there."""
    rows = [{**ROW, "question_id": q, "pair_id": f"{q}/{questions[:n].count(q)}"} for n, q in enumerate(questions)]
    path = folder / "held-out.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return check_training_file(path)


def drawn(file, count, seed):
    chosen = sample(file, count, seed)
    return [chosen.identity(number) for number in range(len(chosen))]


def test_a_sample_is_spread_over_the_questions(tmp_path):
    """A file sorted by question, as real ones are: its first rows would be of one question only."""
    file = file_of(tmp_path, [1] * 50 + [2] * 30 + [3] * 5 + [4])
    for count, each in ((4, [1, 1, 1, 1]), (10, [3, 3, 3, 1]), (40, [17, 17, 5, 1]), (86, [50, 30, 5, 1])):
        ids = drawn(file, count, seed=0)
        assert len(set(ids)) == len(ids) == count
        assert [sum(name.startswith(f"{question}/") for name in ids) for question in (1, 2, 3, 4)] == each
    assert len(sample(file, 1000, 0)) == 86


def test_a_sample_depends_on_seed_and_ids_only(tmp_path):
    file = file_of(tmp_path, [number % 7 for number in range(60)])
    shuffled = file.rows(np.random.default_rng(0).permutation(60))
    assert sorted(drawn(file, 21, 0)) == sorted(drawn(shuffled, 21, 0))
    assert sorted(drawn(file, 21, 0)) != sorted(drawn(file, 21, 1))
    assert set(drawn(file, 10, 0)) < set(drawn(file, 20, 0))  # more records: the same ones and others
    assert {name.split("/")[1] for name in drawn(file, 21, 0)} > {"0", "1", "2"}  # not the first ones of each question


@given(
    has_reference=st.booleans(),
    judged_with_it=st.booleans(),
    support=st.booleans(),
    drop=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_a_held_out_prompt_is_one_that_training_shows(has_reference, judged_with_it, support, drop):
    """For every form of a record: the judged prompt is that of the training example in which nothing is dropped."""
    record = {**ROW, "question_id": 1}
    if has_reference or judged_with_it:
        record["reference"] = {"text": "truth"}
    if judged_with_it:
        record |= {"text_w_reference": "7 9\ny", "score_w_reference": [7, 9]}
    before = dict(record)
    config = DataConfig(swap_augmentation=0.0, reference_support=support, reference_drop=0.0)
    example = example_of(record, draw_variant(1, judged_with_it, config, seed=0, epoch=0))
    shown = as_trained(record, config)
    judged = prompts.render("pair", shown["question_body"], answers_of(shown), reference_of(shown))
    assert judged == prompts.render("pair", example.question, example.answers, example.reference)
    assert ("truth" in judged) == (judged_with_it and support)
    # With drop, training shows this form or the one without reference, and no third.
    other = example_of(record, draw_variant(1, judged_with_it, DataConfig(0.0, support, drop), seed=0, epoch=0))
    assert other in (example, example_of(record, Variant(False, False)))
    assert record == before


@pytest.mark.parametrize("count", [1, 3])
def test_a_sample_keeps_the_order_of_the_file(tmp_path, count):
    lines = sample(file_of(tmp_path, [3, 1, 2, 2, 1, 3]), count, 0).lines
    assert sorted(lines) == lines.tolist()
