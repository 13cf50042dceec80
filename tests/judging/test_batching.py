import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judgelm_jax.judging.batching import Row, batches, bucket, bucket_lengths


def row(index, ids):
    return Row(index, np.array(ids, np.int32), np.array([index, 7], np.uint32))


def rows_of(lengths):
    """Rows that have nothing in common."""
    return [row(index, index + 1 + np.arange(length)) for index, length in enumerate(lengths)]


def beginnings(rows):
    """All distinct beginnings of prompts: the tokens that must be computed."""
    return {tuple(row.ids[:end]) for row in rows for end in range(1, len(row.ids) + 1)}


alike = st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=12), min_size=1, max_size=12)


@given(
    lengths=st.lists(st.integers(1, 2000), max_size=60),
    tokens=st.integers(1, 5000),
    most=st.none() | st.integers(1, 40),
    parts=st.sampled_from([1, 2, 8]),
)
def test_every_prompt_is_in_one_batch_that_holds_it(lengths, tokens, most, parts):
    made = list(batches(rows_of(lengths), bucket_lengths(2000, 2), tokens, most, parts))
    assert sorted(row.index for batch in made for _, row in batch.rows) == list(range(len(lengths)))
    for batch in made:
        assert len(batch.parts) == parts
        assert batch.longest in (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2000)
        assert max(len(row.ids) for _, row in batch.rows) <= batch.longest
        assert max(map(len, batch.parts)) <= batch.prompts
        assert most is None or batch.prompts * parts < most + parts
        for part in batch.parts:
            own = sum(len(row.ids) for row in part)
            assert own <= batch.size
            assert own <= tokens or len(part) == 1 or parts > 1


@settings(max_examples=300)
@given(lists=alike, tokens=st.integers(4, 40), most=st.none() | st.integers(1, 5), parts=st.sampled_from([1, 3]))
def test_each_prompt_can_be_read_off_its_tree_and_the_tree_holds_no_more(lists, tokens, most, parts):
    rows = [row(index, ids) for index, ids in enumerate(lists)]
    found = set()
    for batch in batches(rows, bucket_lengths(64), tokens, most, parts):
        ids, packed, lengths, keys = batch.arrays
        assert ids.shape == packed.positions.shape == packed.sources.shape == (parts, batch.size)
        assert packed.indices.shape == (parts, batch.prompts, batch.longest)
        real = {place for place, _ in batch.rows}
        for place in set(range(parts * batch.prompts)) - real:  # no attention is computed for them
            assert (lengths[place], packed.shared.reshape(-1)[place]) == (1, batch.longest)
        for place, original in batch.rows:
            part, prompt = divmod(place, batch.prompts)
            places = packed.indices[part, prompt, : len(original.ids)]
            assert lengths[place] == len(original.ids)
            assert packed.ends[part, prompt] == places[-1]
            np.testing.assert_array_equal(ids[part, places], original.ids)
            np.testing.assert_array_equal(packed.positions[part, places], np.arange(len(original.ids)))
            np.testing.assert_array_equal(keys[place], original.key)
            found.add(original.index)
        assert batch.tokens == sum(len(beginnings(part)) for part in batch.parts)
        for part, own in enumerate(batch.parts):
            first = [len(one.ids) for one in own]
            for token in range(len(beginnings(own))):
                prompt, position = divmod(packed.sources[part, token], batch.longest)
                assert packed.indices[part, prompt, position] == token
                assert position < len(own[prompt].ids)
                first[prompt] = min(first[prompt], position)
            np.testing.assert_array_equal(packed.shared[part, : len(own)], first)
    assert found == set(range(len(rows)))


@given(st.integers(64, 40_000))
def test_a_bucket_wastes_at_most_a_ninth(most):
    table = bucket_lengths(most)
    assert table[-1] == most
    assert table == sorted(set(table))
    for length in {*range(64, min(most, 500)), most // 2 + 32, most}:
        assert length <= bucket(length, table) <= max(64, length * 9 / 8 + 1)


def test_few_tokens_are_padding():
    # Prompt lengths as measured on real reviews: median 712 tokens, 95 % under 1,206, longest 1,750.
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(712), 0.32, 5000), 300, 1750).astype(int)
    for parts in (1, 8):
        made = list(batches(rows_of(lengths), bucket_lengths(2048), 16384, None, parts))
        computed = sum(parts * batch.size for batch in made)
        assert 1 - lengths.sum() / computed < 0.06
        slots = sum(parts * batch.prompts * batch.longest for batch in made)
        assert lengths.sum() / slots > 0.75
        assert len({batch.shape for batch in made}) < 20  # programs


def test_prompts_of_one_question_are_computed_together():
    # All pairs of four answers to each of 12 questions, in both orders: 40 tokens for all, 60 of the question. All prompts
    # are of one octave: others do not share a batch, so that attention has no more than twice their length to compute.
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(12):
        start = np.concatenate([np.arange(40), rng.integers(0, 1000, 60)])
        answers = [rng.integers(0, 1000, rng.integers(150, 206)) for _ in range(4)]
        pairs = [(one, two) for one in range(4) for two in range(4) if one != two]
        rows += [row(len(rows) + n, np.concatenate([start, answers[one], answers[two]])) for n, (one, two) in enumerate(pairs)]
    made = list(batches(rows, bucket_lengths(2048), 8192, None, 1))
    least = len(beginnings(rows))  # as if all were in one batch
    assert least < 0.66 * sum(len(row.ids) for row in rows)
    assert sum(batch.tokens for batch in made) < 1.05 * least
    # The rows for attention do not grow with what is shared beyond a bound.
    assert all(batch.prompts * batch.longest <= 2 * 8192 * 1.25**2 for batch in made)


def test_a_short_input_is_not_padded_to_a_full_batch():
    (batch,) = batches(rows_of([100, 98, 95]), bucket_lengths(2048), 8192, None, 1)
    assert batch.shape == (1, 320, 3, 104)
    (batch,) = batches(rows_of([100]), bucket_lengths(2048), 8192, None, 8)
    assert batch.shape == (8, 104, 1, 104)


def test_the_last_prompts_are_spread_over_the_devices():
    (batch,) = batches(rows_of([100] * 20), bucket_lengths(2048), 8192, None, 8)
    assert sorted(map(len, batch.parts)) == [2, 2, 2, 2, 3, 3, 3, 3]


def test_few_long_and_many_short_prompts_are_not_spread_together():
    made = list(batches(rows_of([2000] * 4 + [64] * 128), bucket_lengths(2040), 8192, None, 8))
    assert [batch.longest for batch in made] == [2040, 64]
    assert [max(map(len, batch.parts)) for batch in made] == [1, 16]


def test_rows_of_very_different_length_do_not_share_a_batch():
    made = list(batches(rows_of([1000, 990, 400, 390, 100]), bucket_lengths(2048), 8192, 8, 1))
    assert [[len(row.ids) for _, row in batch.rows] for batch in made] == [[1000, 990], [400, 390], [100]]


def test_a_row_beyond_the_table_is_an_error():
    with pytest.raises(IndexError):
        list(batches(rows_of([65]), bucket_lengths(64), 8192, 1, 1))
