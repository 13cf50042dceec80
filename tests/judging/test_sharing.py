"""Prompts that begin alike get what they would get alone."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judgelm_jax import Judge, laboratory
from judgelm_jax.commands.prepare import all_pairs
from judgelm_jax.config import JudgeConfig
from judgelm_jax.judging import sharing
from judgelm_jax.judging.batching import Row, bucket_lengths
from judgelm_jax.model import attention


def row(index, ids):
    return Row(index, np.array(ids, np.int32), np.array([index, 7], np.uint32))


prompts = st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=9), max_size=7)


def best_saving(rows, longest):
    """Of all ways to cut the ordered rows into groups, the most tokens that are saved, by trying each."""
    ordered = sorted(list(row.ids) for row in rows)
    best = 0
    for cuts in itertools.product([False, True], repeat=max(0, len(ordered) - 1)):
        bounds = [0, *(place for place, cut in enumerate(cuts, start=1) if cut), len(ordered)]
        saving = 0
        for begin, end in itertools.pairwise(bounds):
            group = ordered[begin:end]
            if len(group) < 2:
                continue
            trunk = min(len(ids) for ids in group) - 1
            while len({tuple(ids[:trunk]) for ids in group}) > 1:
                trunk -= 1
            gain, total = (len(group) - 1) * trunk, sum(map(len, group))
            if trunk == 0 or gain < 0.2 * total or total - gain > longest:
                break
            saving += gain
        else:
            best = max(best, saving)
    return best


@settings(max_examples=300)
@given(prompts, st.integers(9, 60))
def test_the_cuts_between_groups_save_most(lists, longest):
    rows = [row(index, ids) for index, ids in enumerate(lists)]
    groups, single = sharing.grouped(rows, longest)
    assert sorted(r.index for r in [*single, *(r for group in groups for r in group.rows)]) == list(range(len(rows)))
    for group in groups:
        assert len(group.rows) > 1
        assert len(group.ids) <= longest
        assert len({tuple(r.ids[: group.trunk]) for r in group.rows}) == 1
        assert all(len(r.ids) > group.trunk > 0 for r in group.rows)
    assert sum(group.saved for group in groups) == best_saving(rows, longest)


@given(prompts)
def test_each_prompt_can_be_read_off_its_group(lists):
    rows = [row(index, ids) for index, ids in enumerate(lists)]
    groups, single = sharing.grouped(rows, 64)
    found = {r.index for r in single}
    for batch in sharing.shared_batches(groups, bucket_lengths(64), lambda _: 2):
        tokens, positions, branches, places, trunks, starts, lengths, keys = batch.arrays
        assert tokens.shape == (batch.size, batch.length)
        assert len(places) == batch.prompts >= len(batch.rows)
        for prompt, original in enumerate(batch.rows):
            place, start = places[prompt], starts[prompt]
            own = branches[place] == branches[place, start]
            seen = own | ((branches[place] == 0) & (np.arange(batch.length) < trunks[prompt]))
            np.testing.assert_array_equal(tokens[place][seen], original.ids)
            np.testing.assert_array_equal(positions[place][seen], np.arange(len(original.ids)))
            assert lengths[prompt] == len(original.ids)
            np.testing.assert_array_equal(keys[prompt], original.key)
            found.add(original.index)
    assert found == set(range(len(rows)))


@pytest.fixture(scope="module")
def pairs():
    """All pairs of four answers to three questions."""
    records = []
    for number, pair in enumerate(laboratory.make_pairs(3, seed=5)):
        record = {"question_id": number, "question_body": pair.record["question_body"]}
        for place in range(1, 5):
            text = pair.record[f"answer{1 + place % 2}_body"] + " It is so." * (20 + place)
            record |= {f"answer{place}_body": text, f"answer{place}_model_id": str(place), f"answer{place}_metadata": {}}
        records += all_pairs(record)
    return records


@pytest.mark.parametrize("mode", ["scores", "distribution"])
def test_verdicts_are_the_same_with_and_without_sharing(laboratory_checkpoint, one_device, pairs, mode):
    judge = Judge.load(str(laboratory_checkpoint), one_device, JudgeConfig(dtype="float32", mode=mode, orders="both"))
    rows = judge.prepare(list(enumerate(pairs)), {}, "both").rows
    assert len(rows) == 36
    engine = judge.engine
    shared = {answer.index: answer for answer in engine.run(rows)}
    counts = engine.counts
    assert counts.shared_tokens > 0.2 * counts.prompt_tokens
    assert counts.prompt_tokens == sum(len(r.ids) for r in rows)
    engine._shares = False
    before = counts.shared_tokens
    alone = {answer.index: answer for answer in engine.run(rows)}
    assert counts.shared_tokens == before
    assert shared.keys() == alone.keys() == set(range(36))
    for index, answer in alone.items():
        assert shared[index].ids == answer.ids
        if mode == "distribution":
            np.testing.assert_allclose(shared[index].log_probabilities, answer.log_probabilities, atol=1e-4)
    if mode == "scores":
        assert len({tuple(answer.ids) for answer in alone.values()}) > 1


@pytest.mark.parametrize("backend", attention.BRANCHING)
def test_a_branch_sees_the_trunk_and_itself(backend):
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, *shape), np.float32) for shape in ((300, 2, 8), (1, 300, 8), (1, 300, 8)))
    branches = np.repeat([0, 1, 2], [140, 100, 60])[None]
    out = attention.attend(q, k, v, None, backend, branches, trunk=True)
    for branch in (1, 2):
        seen = (branches[0] == 0) | (branches[0] == branch)
        alone = attention.attend(q[:, seen], k[:, :, seen], v[:, :, seen], None, "reference")
        np.testing.assert_allclose(out[:, branches[0] == branch], alone[:, 140:], atol=1e-5)


@pytest.mark.parametrize("backend", sorted(set(attention.BACKENDS) - set(attention.BRANCHING)))
def test_a_kernel_that_cannot_branch_says_so(backend):
    q, k = (jax.ShapeDtypeStruct(shape, "bfloat16") for shape in ((1, 128, 1, 128), (1, 1, 128, 128)))
    with pytest.raises(ValueError, match=f"{backend} cannot branch"):
        attention.attend(q, k, k, None, backend, jax.ShapeDtypeStruct((1, 128), "int32"), trunk=True)
