"""Prompts sorted into batches from a small table of shapes, in which what prompts have in common is there once.

All pairs of N answers to a question ask 2 × (N choose 2) prompts in both orders, and N - 1 of them have system text, question
and first answer in common:
```
                                  ┌ answer B, end          Everything but attention is computed for the tokens of this tree,
system text ─┬ question, answer A ┼ answer C, end          packed into one row without padding. For attention, and in the
             │                    └ answer D, end          cache, each prompt gets a row of its own, as if it were alone.
             └ question, answer B ─ answer A, end
```
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

_SHORTEST = 64
_PER_OCTAVE = 8  # sizes between a power of two and the next: what fills a size best wastes at most 1/9
# Prompts belong together that have in common, beyond what all have, this part of what is left of them.
_ALIKE = 0.1
# Of prompts that have much in common, rows for attention and cache may hold so many times the tokens that are computed, before
# they and their number are filled up.
_MOST_REPEATED = 2
# A batch takes the shape of another one, so that one program computes both, where it is larger by no more than this: in
# tokens, and in rows for attention and cache.
_MORE_TOKENS, _MORE_ROWS = 0.1, 0.25

Shape = tuple[int, int, int, int]


class TreeArrays(NamedTuple):
    """How prompts are packed into token rows: int32 arrays of the host, as `model.views.PromptTree` describes them."""

    indices: np.ndarray
    shared: np.ndarray
    ends: np.ndarray
    positions: np.ndarray
    sources: np.ndarray


@dataclasses.dataclass(frozen=True)
class Row:
    """One prompt to be answered: `ids` int32 [tokens], `key` uint32 [2] for sampling; `index` is the caller's."""

    index: int
    ids: np.ndarray
    key: np.ndarray


@dataclasses.dataclass(frozen=True)
class Batch:
    """Prompts that are computed together: one part of them for each device that the batch is split over.

    The tree of a part's prompts is filled up to `size` tokens, its prompts to `prompts`, and each prompt to `longest` tokens.
    """

    parts: tuple[tuple[Row, ...], ...]
    size: int
    prompts: int
    longest: int

    @property
    def shape(self) -> Shape:
        """Batches of one shape are computed by one program."""
        return len(self.parts), self.size, self.prompts, self.longest

    @property
    def rows(self) -> list[tuple[int, Row]]:
        """Each prompt and its place among all of the batch, `len(parts) × prompts`."""
        return [(part * self.prompts + at, row) for part, rows in enumerate(self.parts) for at, row in enumerate(rows)]

    @property
    def tokens(self) -> int:
        """Of all trees, without what fills them up."""
        return sum(_tree_size(part) for part in self.parts)

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, TreeArrays, np.ndarray, np.ndarray]:
        """Tokens int32 [parts, size] and the way they are packed; of all prompts, lengths int32 [parts × prompts] and keys
        uint32 [parts × prompts, 2]. A prompt that only fills up has one token."""
        count = len(self.parts)
        tokens, positions, sources = np.zeros((3, count, self.size), np.int32)
        places = np.zeros((count, self.prompts, self.longest), np.int32)
        owns = np.full((count, self.prompts), self.longest, np.int32)
        lengths = np.ones((count, self.prompts), np.int32)
        keys = np.zeros((count, self.prompts, 2), np.uint32)
        for part, rows in enumerate(self.parts):
            end, before = 0, np.zeros(0, np.int32)
            for prompt, row in enumerate(rows):
                shared, length = _common(before, row.ids), len(row.ids)
                start, end = end, end + length - shared
                tokens[part, start:end] = row.ids[shared:]
                positions[part, start:end] = np.arange(shared, length)
                sources[part, start:end] = prompt * self.longest + np.arange(shared, length)
                places[part, prompt, :shared] = places[part, prompt - 1, :shared]
                places[part, prompt, shared:length] = np.arange(start, end)
                owns[part, prompt], lengths[part, prompt], keys[part, prompt] = shared, length, row.key
                before = row.ids
        ends = np.take_along_axis(places, lengths[..., None] - 1, axis=2)[..., 0]
        return tokens, TreeArrays(places, owns, ends, positions, sources), lengths.reshape(-1), keys.reshape(-1, 2)


def bucket_lengths(most: int, per_octave: int = _PER_OCTAVE) -> list[int]:
    """The sizes that something may have: so many between a power of two and the next, from 64 up to the largest."""
    lengths = []
    octave = _SHORTEST
    while octave < most:
        lengths += [octave + octave * part // per_octave for part in range(per_octave)]
        octave *= 2
    return [length for length in lengths if length < most] + [most]


def bucket(length: int, table: Sequence[int]) -> int:
    """The smallest size of the table that holds `length`."""
    return table[bisect.bisect_left(table, length)]


def batches(
    rows: Sequence[Row], table: Sequence[int], tokens: int, most: int | None, parts: int, known: Iterable[Shape] = ()
) -> list[Batch]:
    """Splits prompts into batches, the longest prompts first and those that begin alike together.

    Args:
      table: the lengths to which prompts may be filled up, ascending.
      tokens: of the tree of one part, at most, unless one prompt has more.
      most: the number of prompts that a batch may have, rounded up to `parts`; None: any.
      parts: the devices that a batch is split over.
      known: shapes that are taken before new ones, where they fit.
    """
    # What few prompts are spread over can be more than `tokens`: they are spread by their number.
    sizes = bucket_lengths(4 * max(tokens, table[-1]))
    of_a_part = None if most is None else -(-most // parts)
    made = []
    octaves: dict[int, list[Row]] = {}
    for row in rows:
        octaves.setdefault(max(_SHORTEST, len(row.ids) - 1).bit_length(), []).append(row)
    for octave in sorted(octaves, reverse=True):
        for some in _together(_parts(octaves[octave], sizes, tokens, of_a_part), parts):
            prompts = bucket(max(map(len, some)), _COUNTS)
            length = bucket(max(len(row.ids) for part in some for row in part), table)
            size = bucket(max(map(_tree_size, some)), sizes)
            prompts = prompts if of_a_part is None else min(prompts, of_a_part)
            made.append(Batch(tuple(map(tuple, some)), size, prompts, length))
    return _of_few_shapes(made, known)


def _of_few_shapes(made: list[Batch], known: Iterable[Shape]) -> list[Batch]:
    """The same batches, of which many have the shape of a larger one."""
    shapes = list(known)
    fitted: dict[int, Batch] = {}
    for place in sorted(range(len(made)), key=lambda place: (-made[place].size, -made[place].prompts * made[place].longest)):
        batch = made[place]
        fits = [
            (size, prompts, longest)
            for parts, size, prompts, longest in shapes
            if parts == len(batch.parts)
            and batch.size <= size <= (1 + _MORE_TOKENS) * batch.size
            and batch.prompts <= prompts
            and batch.longest <= longest
            and prompts * longest <= (1 + _MORE_ROWS) * batch.prompts * batch.longest
        ]
        if fits:
            size, prompts, longest = min(fits, key=lambda shape: (shape[0], shape[1] * shape[2]))
            batch = dataclasses.replace(batch, size=size, prompts=prompts, longest=longest)
        else:
            shapes.append(batch.shape)
        fitted[place] = batch
    return [fitted[place] for place in range(len(made))]


# Numbers of prompts that a part may have: each up to 8, then four to an octave.
_COUNTS = [*range(1, 4), *(part << octave for octave in range(16) for part in range(4, 8))]


def _together(made: Sequence[list[Row]], parts: int) -> Iterator[list[list[Row]]]:
    """As many parts as there are devices; where there are fewer, their prompts are spread."""
    for start in range(0, len(made), parts):
        yield _spread(made[start : start + parts], parts)


def _spread(some: Sequence[list[Row]], parts: int) -> list[list[Row]]:
    if len(some) == parts:
        return list(some)
    rows = [row for part in some for row in part]
    shares = (rows[len(rows) * part // parts : len(rows) * (part + 1) // parts] for part in range(parts))
    return [sorted(share, key=_alphabetical) for share in shares]


def _parts(rows: Sequence[Row], sizes: Sequence[int], tokens: int, most: int | None) -> list[list[Row]]:
    """Prompts of the trees of one device each, in the order of their ids."""
    made: list[list[Row]] = []
    size = longest = 0
    for row in _ordered(rows):
        length = len(row.ids)
        if made:
            part = made[-1]
            own, longest = length - _common(part[-1].ids, row.ids), max(longest, length)
            repeated = (len(part) + 1) * bucket(longest, sizes) > _MOST_REPEATED * tokens
            if size + own <= tokens and len(part) != most and not repeated:
                part.append(row)
                size += own
                continue
        made.append([row])
        size = longest = length
    return [sorted(part, key=_alphabetical) for part in made]


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """In the order of their ids, prompts that begin alike are neighbours; families of neighbours that have much in common are
    then ordered by length, the longest first."""
    ordered = sorted(rows, key=_alphabetical)
    common = [0, *(_common(one.ids, two.ids) for one, two in itertools.pairwise(ordered))]
    everywhere = min(common[1:], default=0)
    families: list[list[Row]] = []
    for row, shared in zip(ordered, common, strict=False):
        if families and shared - everywhere > _ALIKE * (len(row.ids) - everywhere):
            families[-1].append(row)
        else:
            families.append([row])
    families.sort(key=lambda family: -max(len(row.ids) for row in family))
    return [row for family in families for row in family]


def _alphabetical(row: Row) -> bytes:
    return row.ids.astype(">i4").tobytes()


def _tree_size(rows: Sequence[Row]) -> int:
    """Tokens of the tree of prompts that are in the order of their ids."""
    shared = sum(_common(one.ids, two.ids) for one, two in itertools.pairwise(rows))
    return sum(len(row.ids) for row in rows) - shared


def _common(one: np.ndarray, two: np.ndarray) -> int:
    """The number of ids with which both begin."""
    length = min(len(one), len(two))
    differ = one[:length] != two[:length]
    return int(differ.argmax()) if differ.any() else length
