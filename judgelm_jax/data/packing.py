"""Several documents in one row, in segments that do not see each other. Pure functions."""

from collections.abc import Sequence

import numpy as np

from judgelm_jax.data.tokens import Tokens


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Puts each item, in order, into the first bin that has room for it.

    A tree over the bins holds the most room in each subtree, so that an item costs O(log n); all bins stay open.

    Returns the bins, each with the indices of its items in `lengths`, both in the order in which they were begun.

    Raises:
      ValueError: an item is longer than a bin.
    """
    leaves = 1
    while leaves < len(lengths):
        leaves *= 2
    room = [capacity] * (2 * leaves)  # node k has the children 2k and 2k + 1
    bins: list[list[int]] = []
    for index, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"an item of length {length} fits no bin of {capacity}")
        node = 1
        while node < leaves:
            node *= 2
            if room[node] < length:
                node += 1
        if node - leaves == len(bins):
            bins.append([])
        bins[node - leaves].append(index)
        room[node] -= length
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return bins


def lay_out(documents: Sequence[Tokens], length: int, targets: int) -> dict[str, np.ndarray]:
    """The arrays of a row of `length` S tokens with at most `targets` M of them to learn.

    Returns int32 `tokens` [S], `positions` [S] (from 0 in each document), `segments` [S] (1, 2, … and 0 for padding),
    `target_indices` [M] (of the token that predicts the target), `target_ids` [M], and float32 `target_mask` [M].
    """
    row = {name: np.zeros(length, np.int32) for name in ("tokens", "positions", "segments")}
    row |= {name: np.zeros(targets, np.int32) for name in ("target_indices", "target_ids")}
    row["target_mask"] = np.zeros(targets, np.float32)
    start, learned = 0, 0
    for segment, document in enumerate(documents, start=1):
        end = start + len(document.ids)
        row["tokens"][start:end] = document.ids
        row["positions"][start:end] = np.arange(len(document.ids))
        row["segments"][start:end] = segment
        own = slice(learned, learned + len(document.ids) - document.prompt)
        row["target_indices"][own] = np.arange(start + document.prompt - 1, end - 1)
        row["target_ids"][own] = document.ids[document.prompt :]
        row["target_mask"][own] = 1
        start, learned = end, own.stop
    return row
