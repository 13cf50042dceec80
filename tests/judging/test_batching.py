import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judgelm_jax.evaluation.benchmarks.pandalm import read_pandalm
from judgelm_jax.judging.batching import Prompt, batches, bucket, bucket_lengths
from judgelm_jax.judging.responses import Counts
from judgelm_jax.prompts.prompts import render
from judgelm_jax.records.records import answers_of
from judgelm_jax.tokens.tokenization import load_tokenizer, prompt_ids


def prompt_of(index, ids):
    return Prompt(index, np.array(ids, np.int32), np.array([index, 7], np.uint32))


def prompts_of(lengths):
    """Prompts that have nothing in common."""
    return [prompt_of(index, index + 1 + np.arange(length)) for index, length in enumerate(lengths)]


def prefixes(prompts):
    """All distinct prefixes of prompts: the tokens that must be computed."""
    return {tuple(prompt.ids[:end]) for prompt in prompts for end in range(1, len(prompt.ids) + 1)}


alike = st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@given(
    lengths=st.lists(st.integers(1, 2000), max_size=60),
    tokens=st.integers(1, 5000),
    most=st.none() | st.integers(1, 40),
    devices=st.sampled_from([1, 2, 8]),
)
def test_every_prompt_is_in_one_batch_that_holds_it(lengths, tokens, most, devices):
    found = list(batches(prompts_of(lengths), bucket_lengths(2000, 2), tokens, most, devices))
    assert sorted(prompt.index for batch in found for _, prompt in batch.prompts_by_index) == list(range(len(lengths)))
    for batch in found:
        assert len(batch.device_batches) == devices
        assert batch.prompt_length in (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2000)
        assert max(len(prompt.ids) for _, prompt in batch.prompts_by_index) <= batch.prompt_length
        assert max(map(len, batch.device_batches)) <= batch.prompts
        assert most is None or batch.prompts * devices < most + devices
        for own_prompts in batch.device_batches:
            own = sum(len(prompt.ids) for prompt in own_prompts)
            assert own <= batch.row_length
            assert own <= tokens or len(own_prompts) == 1 or devices > 1


@settings(max_examples=300)
@given(lists=alike, tokens=st.integers(4, 40), most=st.none() | st.integers(1, 5), devices=st.sampled_from([1, 3]))
def test_each_prompt_can_be_read_off_its_tree_and_the_tree_holds_no_more(lists, tokens, most, devices):
    prompts = [prompt_of(index, ids) for index, ids in enumerate(lists)]
    seen = set()
    for batch in batches(prompts, bucket_lengths(64), tokens, most, devices):
        ids, tree, lengths, keys = batch.arrays
        assert ids.shape == tree.positions.shape == tree.sources.shape == (devices, batch.row_length)
        assert tree.indices.shape == (devices, batch.prompts, batch.prompt_length)
        real = {index for index, _ in batch.prompts_by_index}
        for index in set(range(batch.capacity)) - real:  # no attention is computed for them
            assert (lengths[index], tree.shared.reshape(-1)[index]) == (1, batch.prompt_length)
        for index, original in batch.prompts_by_index:
            row, number = divmod(index, batch.prompts)
            path = tree.indices[row, number, : len(original.ids)]
            assert lengths[index] == len(original.ids)
            assert tree.ends[row, number] == path[-1]
            np.testing.assert_array_equal(ids[row, path], original.ids)
            np.testing.assert_array_equal(tree.positions[row, path], np.arange(len(original.ids)))
            np.testing.assert_array_equal(keys[index], original.key)
            seen.add(original.index)
        assert batch.tree_tokens == sum(len(prefixes(own)) for own in batch.device_batches)
        for row, own in enumerate(batch.device_batches):
            first = [len(one.ids) for one in own]
            for token in range(len(prefixes(own))):
                number, position = divmod(tree.sources[row, token], batch.prompt_length)
                assert tree.indices[row, number, position] == token
                assert position < len(own[number].ids)
                first[number] = min(first[number], position)
            np.testing.assert_array_equal(tree.shared[row, : len(own)], first)
    assert seen == set(range(len(prompts)))


@given(st.integers(64, 40_000))
def test_a_bucket_wastes_at_most_a_ninth(most):
    buckets = bucket_lengths(most)
    assert buckets[-1] == most
    assert buckets == sorted(set(buckets))
    for length in {*range(64, min(most, 500)), most // 2 + 32, most}:
        assert length <= bucket(length, buckets) <= max(64, length * 9 / 8 + 1)


def test_few_tokens_are_padding():
    # Prompt lengths as measured on real reviews: median 712 tokens, 95 % under 1,206, longest 1,750.
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(712), 0.32, 5000), 300, 1750).astype(int)
    for devices in (1, 8):
        found = list(batches(prompts_of(lengths), bucket_lengths(2048), 16384, None, devices))
        computed = sum(devices * batch.row_length for batch in found)
        assert 1 - lengths.sum() / computed < 0.06
        slots = sum(devices * batch.prompts * batch.prompt_length for batch in found)
        assert lengths.sum() / slots > 0.75
        assert len({batch.shape for batch in found}) < 20  # programs


@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
def test_few_tokens_are_padding_where_real_pairs_are_split_over_eight_devices(shared, both):
    tokenizer = load_tokenizer(shared / "data" / "tokenizers" / "llama_hf")
    prompts = []
    for record in read_pandalm(shared / "data" / "benchmarks" / "pandalm").records:
        for answers in [answers_of(record), answers_of(record)[::-1]][: 1 + both]:
            text = render("pair", record["question_body"], answers, None)
            prompts.append(prompt_of(len(prompts), prompt_ids(tokenizer, text)))
    counts = Counts()
    for batch in batches(prompts, bucket_lengths(2038), 16384, None, 8):
        counts.add_prompts(batch)
    assert counts.prompt_tokens == sum(len(prompt.ids) for prompt in prompts)
    assert counts.padding < 0.1


def test_prompts_of_one_question_are_computed_together():
    # All pairs of four answers to each of 12 questions, in both orders: 40 tokens for all, 60 of the question. All prompts
    # are of one octave: others do not share a batch, so that attention has no more than twice their length to compute.
    rng = np.random.default_rng(0)
    prompts = []
    for _ in range(12):
        start = np.concatenate([np.arange(40), rng.integers(0, 1000, 60)])
        answers = [rng.integers(0, 1000, rng.integers(150, 206)) for _ in range(4)]
        pairs = [(one, two) for one in range(4) for two in range(4) if one != two]
        for one, two in pairs:
            prompts.append(prompt_of(len(prompts), np.concatenate([start, answers[one], answers[two]])))
    found = list(batches(prompts, bucket_lengths(2048), 8192, None, 1))
    least = len(prefixes(prompts))  # as if all were in one batch
    assert least < 0.66 * sum(len(prompt.ids) for prompt in prompts)
    assert sum(batch.tree_tokens for batch in found) < 1.05 * least
    # The rows for attention do not grow with what is shared beyond a bound.
    assert all(batch.prompts * batch.prompt_length <= 2 * 8192 * 1.25**2 for batch in found)


def test_a_short_input_is_not_padded_to_a_full_batch():
    (batch,) = batches(prompts_of([100, 98, 95]), bucket_lengths(2048), 8192, None, 1)
    assert batch.shape == (1, 320, 3, 104)
    (batch,) = batches(prompts_of([100]), bucket_lengths(2048), 8192, None, 8)
    assert batch.shape == (8, 104, 1, 104)


def test_the_last_prompts_are_spread_over_the_devices():
    (batch,) = batches(prompts_of([100] * 20), bucket_lengths(2048), 8192, None, 8)
    assert sorted(map(len, batch.device_batches)) == [2, 2, 2, 2, 3, 3, 3, 3]


def test_few_long_and_many_short_prompts_are_not_spread_together():
    found = list(batches(prompts_of([2000] * 4 + [64] * 128), bucket_lengths(2040), 8192, None, 8))
    assert [batch.prompt_length for batch in found] == [2040, 64]
    assert [max(map(len, batch.device_batches)) for batch in found] == [1, 16]


def test_prompts_of_very_different_length_do_not_share_a_batch():
    found = list(batches(prompts_of([1000, 990, 400, 390, 100]), bucket_lengths(2048), 8192, 8, 1))
    assert [[len(prompt.ids) for _, prompt in batch.prompts_by_index] for batch in found] == [[1000, 990], [400, 390], [100]]


def test_a_prompt_beyond_the_buckets_is_an_error():
    with pytest.raises(IndexError):
        list(batches(prompts_of([65]), bucket_lengths(64), 8192, 1, 1))
