"""Rows sorted by length into batches from a small table of shapes."""

import bisect
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

_SHORTEST = 64
_LEAST_FULL = 0.8  # a row that would fill less of its batch's length goes to the next batch
_PER_OCTAVE = 8  # lengths between a power of two and the next: a row that fills its batch's longest wastes at most 1/9


@dataclasses.dataclass(frozen=True)
class Row:
    """One prompt to be answered: `ids` int32 [tokens], `key` uint32 [2] for sampling; `index` is the caller's."""

    index: int
    ids: np.ndarray
    key: np.ndarray


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows that are computed together, padded on the right to `length` and below to `size` rows."""

    rows: tuple[Row, ...]
    size: int
    length: int

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """tokens int32 [size, length], lengths int32 [size], keys uint32 [size, 2]. Rows that fill up have one token 0."""
        tokens = np.zeros((self.size, self.length), np.int32)
        lengths = np.ones(self.size, np.int32)
        keys = np.zeros((self.size, 2), np.uint32)
        for place, row in enumerate(self.rows):
            tokens[place, : len(row.ids)] = row.ids
            lengths[place] = len(row.ids)
            keys[place] = row.key
        return tokens, lengths, keys


def bucket_lengths(context: int) -> list[int]:
    """The lengths that batches may have: eight to an octave, from 64 up to the context."""
    lengths = []
    octave = _SHORTEST
    while octave < context:
        lengths += [octave + octave * part // _PER_OCTAVE for part in range(_PER_OCTAVE)]
        octave *= 2
    return [length for length in lengths if length < context] + [context]


def bucket(length: int, table: Sequence[int]) -> int:
    """The shortest length of the table that holds `length` tokens."""
    return table[bisect.bisect_left(table, length)]


def batches(rows: Sequence[Row], table: Sequence[int], size_of: Callable[[int], int], multiple: int) -> Iterator[Batch]:
    """Splits rows into batches, the longest rows first.

    Args:
      table: the lengths that batches may have, ascending.
      size_of: the number of rows of a batch of this length; it is rounded up to a multiple of `multiple` (the devices that
        the batch is split over). A batch ends early where rows are much shorter than its longest, and one that its
        rows do not fill is made smaller, so that few rows, or rows of very different length, are not padded to full batches.
    """
    ordered = sorted(rows, key=lambda row: (-len(row.ids), row.index))
    start = 0
    while start < len(ordered):
        length = bucket(len(ordered[start].ids), table)
        size = -(-size_of(length) // multiple) * multiple
        taken = [row for row in ordered[start : start + size] if len(row.ids) >= _LEAST_FULL * length] or ordered[
            start : start + 1
        ]
        start += len(taken)
        while len(taken) <= (half := -(-size // (2 * multiple)) * multiple) < size:
            size = half
        # Between that and its half, in eighths: at most a fifth of the rows only fill up.
        eighths = (-(-size * part // (8 * multiple)) * multiple for part in range(4, 9))
        size = next(eighth for eighth in eighths if eighth >= len(taken))
        yield Batch(tuple(taken), size, length)
