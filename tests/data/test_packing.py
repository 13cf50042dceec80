"""Bins and rows are held against the obvious, slow way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.data.packing import first_fit, lay_out
from judgelm_jax.data.tokens import Tokens


def slow_first_fit(lengths: list[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    for place, length in enumerate(lengths):
        for bin in bins:
            if sum(lengths[other] for other in bin) + length <= capacity:
                bin.append(place)
                break
        else:
            bins.append([place])
    return bins


@given(st.lists(st.integers(1, 20)), st.integers(20, 40))
def test_first_fit_is_first_fit(lengths: list[int], capacity: int) -> None:
    bins = first_fit(lengths, capacity)
    assert sorted(place for bin in bins for place in bin) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in bin) <= capacity for bin in bins)
    assert bins == slow_first_fit(lengths, capacity)


def test_an_item_longer_than_a_bin_is_refused() -> None:
    assert first_fit([5, 5], 5) == [[0], [1]]
    with pytest.raises(ValueError, match="length 6"):
        first_fit([5, 6], 5)


def test_many_items_are_no_matter() -> None:
    lengths = np.random.default_rng(0).integers(1, 2049, 100_000).tolist()
    bins = first_fit(lengths, 2048)
    assert sum(map(len, bins)) == 100_000
    assert len(bins) < 1.1 * sum(lengths) / 2048


DOCUMENTS = st.lists(st.tuples(st.lists(st.integers(1, 99), min_size=1), st.lists(st.integers(1, 99), min_size=1)))


@given(DOCUMENTS, st.integers(0, 3), st.integers(0, 3))
def test_a_row_holds_each_document_in_its_segment(parts: list[tuple[list[int], list[int]]], padding: int, more: int) -> None:
    documents = [Tokens(np.array(prompt + target, np.int32), len(prompt), (0, 0)) for prompt, target in parts]
    length = sum(len(document.ids) for document in documents) + padding
    targets = sum(len(target) for _, target in parts) + more
    row = lay_out(documents, length, targets)
    tokens, positions, segments, learned = [], [], [], []
    for number, (prompt, target) in enumerate(parts, start=1):
        for position, token in enumerate(prompt + target):
            if position >= len(prompt):
                learned.append((len(tokens) - 1, token))  # predicted by the token before it
            tokens.append(token)
            positions.append(position)
            segments.append(number)
    for name, expected in (("tokens", tokens), ("positions", positions), ("segments", segments)):
        assert row[name].dtype == np.int32
        assert row[name].tolist() == expected + [0] * padding
    assert row["target_mask"].dtype == np.float32
    assert row["target_mask"].tolist() == [1.0] * len(learned) + [0.0] * more
    assert list(zip(row["target_indices"].tolist(), row["target_ids"].tolist(), strict=True)) == learned + [(0, 0)] * more
