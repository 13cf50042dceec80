import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.judging.batching import Row, batches, bucket, bucket_lengths


def rows_of(lengths):
    return [Row(index, np.arange(length, dtype=np.int32), np.zeros(2, np.uint32)) for index, length in enumerate(lengths)]


@given(
    lengths=st.lists(st.integers(1, 2000), max_size=60),
    tokens=st.integers(1, 5000),
    multiple=st.sampled_from([1, 2, 8]),
)
def test_every_row_is_in_one_batch_that_holds_it(lengths, tokens, multiple):
    table = bucket_lengths(2000)
    made = list(batches(rows_of(lengths), table, lambda length: max(1, tokens // length), multiple))
    assert sorted(row.index for batch in made for row in batch.rows) == list(range(len(lengths)))
    for batch in made:
        assert 0 < len(batch.rows) <= batch.size
        assert batch.size % multiple == 0
        assert batch.length in table
        assert max(len(row.ids) for row in batch.rows) <= batch.length
        assert batch.size * batch.length <= max(tokens, multiple * batch.length) + (multiple - 1) * batch.length


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=8))
def test_arrays_hold_the_rows_and_nothing_else(lengths):
    for batch in batches(rows_of(lengths), bucket_lengths(300), lambda _: 4, 1):
        tokens, counts, _ = batch.arrays
        assert tokens.shape == (batch.size, batch.length)
        for place, row in enumerate(batch.rows):
            assert counts[place] == len(row.ids)
            np.testing.assert_array_equal(tokens[place, : len(row.ids)], row.ids)
            assert (tokens[place, len(row.ids) :] == 0).all()
        assert (counts[len(batch.rows) :] == 1).all()


@given(st.integers(64, 40_000))
def test_a_bucket_wastes_at_most_a_ninth(context):
    table = bucket_lengths(context)
    assert table[-1] == context
    assert table == sorted(set(table))
    for length in {*range(64, min(context, 500)), context // 2 + 32, context}:
        assert length <= bucket(length, table) <= max(64, length * 9 / 8 + 1)


def test_padding_of_many_real_lengths_stays_under_a_tenth():
    # Prompt lengths as measured on real reviews: median 712 tokens, 95 % under 1,206, longest 1,750.
    lengths = np.clip(np.random.default_rng(0).lognormal(np.log(712), 0.32, 5000), 300, 1750).astype(int)
    made = list(batches(rows_of(lengths), bucket_lengths(2048), lambda length: 16384 // length, 1))
    computed = sum(batch.size * batch.length for batch in made)
    assert 1 - lengths.sum() / computed < 0.10


def test_a_short_input_is_not_padded_to_a_full_batch():
    (batch,) = batches(rows_of([100, 98, 95]), bucket_lengths(2048), lambda _: 64, 1)
    assert batch.size == 3
    (batch,) = batches(rows_of([100]), bucket_lengths(2048), lambda _: 64, 8)
    assert batch.size == 8


@given(full=st.integers(1, 200), data=st.data())
def test_a_batch_that_is_not_full_has_at_most_a_fifth_to_spare(full, data):
    count = data.draw(st.integers(1, full))
    (batch,) = batches(rows_of([100] * count), bucket_lengths(2048), lambda _: full, 1)
    assert count <= batch.size <= max(count + 1, count * 5 / 4)


def test_rows_of_very_different_length_do_not_share_a_batch():
    made = list(batches(rows_of([1000, 990, 400, 390, 100]), bucket_lengths(2048), lambda _: 8, 1))
    assert [[len(row.ids) for row in batch.rows] for batch in made] == [[1000, 990], [400, 390], [100]]


def test_a_row_beyond_the_table_is_an_error():
    with pytest.raises(IndexError):
        list(batches(rows_of([65]), [64], lambda _: 1, 1))
