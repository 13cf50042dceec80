"""Prompts that begin alike, packed into one row so that what they share is computed once.

All pairs of N answers to a question ask 2 × (N choose 2) prompts in both orders, and N - 1 of them have system text, question
and first answer in common:
```
trunk                         branch 1          branch 2          branch 3
[ question, answer A        | answer B, end   | answer C, end   | answer D, end   ]
```
A token sees the trunk and what is before it in its own branch, at the position that it has in its own prompt. Afterwards each
prompt gets a cache of its own, as if it had been computed alone.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from judgelm_jax.judging.batching import Row, batches, bucket
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.sharding import constrain

# Less is not worth what sharing costs: attention among branches that do not see each other, and a copy of the cache.
_LEAST_SAVED = 0.2
_MOST_BRANCHES = 16


@dataclasses.dataclass(frozen=True)
class Group:
    """Prompts whose first `trunk` ids are the same; each has more."""

    rows: tuple[Row, ...]
    trunk: int

    @property
    def saved(self) -> int:
        """Tokens that are not computed again."""
        return (len(self.rows) - 1) * self.trunk

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """The trunk, then what follows it in each prompt."""
        return np.concatenate([self.rows[0].ids[: self.trunk], *(row.ids[self.trunk :] for row in self.rows)])


@dataclasses.dataclass(frozen=True)
class SharedBatch:
    """Groups that are computed together, filled up to `size` groups of `length` tokens; their prompts are filled up to
    `prompts` of at most `longest` tokens."""

    groups: tuple[Group, ...]
    size: int
    length: int
    prompts: int
    longest: int

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(row for group in self.groups for row in group.rows)

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """int32 [size, length]: tokens, positions, branches (0: the trunk); int32 [prompts]: the group of each prompt, its
        trunk, the place of its branch, its length; keys uint32 [prompts, 2]."""
        tokens, positions, branches = np.zeros((3, self.size, self.length), np.int32)
        groups, trunks, starts = np.zeros((3, self.prompts), np.int32)
        lengths = np.ones(self.prompts, np.int32)
        keys = np.zeros((self.prompts, 2), np.uint32)
        prompt = 0
        for place, group in enumerate(self.groups):
            tokens[place, : len(group.ids)] = group.ids
            positions[place, : group.trunk] = np.arange(group.trunk)
            start = group.trunk
            for branch, row in enumerate(group.rows, start=1):
                end = start + len(row.ids) - group.trunk
                positions[place, start:end] = np.arange(group.trunk, len(row.ids))
                branches[place, start:end] = branch
                groups[prompt], trunks[prompt], starts[prompt] = place, group.trunk, start
                lengths[prompt], keys[prompt] = len(row.ids), row.key
                start, prompt = end, prompt + 1
            branches[place, start:] = _MOST_BRANCHES + 1  # padding, which nothing sees
        return tokens, positions, branches, groups, trunks, starts, lengths, keys


def grouped(rows: Sequence[Row], longest: int) -> tuple[list[Group], list[Row]]:
    """Groups that save enough, and the rows that are in none. No group has more than `longest` ids.

    Of rows in the order of their ids, those that begin alike are neighbours. The cuts between groups are those that save
    most, found by dynamic programming.
    """
    ordered = sorted(rows, key=lambda row: row.ids.astype(">i4").tobytes())
    common = [0, *(_common(one.ids, two.ids) for one, two in itertools.pairwise(ordered))]
    saved = np.zeros(len(ordered) + 1, np.int64)  # by the first rows
    begins = np.arange(len(ordered))  # where the last group of the first rows begins, by its last row
    for end in range(len(ordered)):
        saved[end + 1] = saved[end]
        trunk, total = len(ordered[end].ids) - 1, len(ordered[end].ids)
        for begin in range(end - 1, max(-1, end - _MOST_BRANCHES), -1):
            trunk = min(trunk, common[begin + 1], len(ordered[begin].ids) - 1)
            total += len(ordered[begin].ids)
            gain = (end - begin) * trunk
            if trunk == 0 or total - gain > longest:
                break
            if gain >= _LEAST_SAVED * total and saved[begin] + gain > saved[end + 1]:
                saved[end + 1], begins[end] = saved[begin] + gain, begin
    groups, single = [], []
    end = len(ordered) - 1
    while end >= 0:
        begin = int(begins[end])
        if begin == end:
            single.append(ordered[end])
        else:
            chosen = ordered[begin : end + 1]
            trunk = min(*common[begin + 1 : end + 1], *(len(row.ids) - 1 for row in chosen))
            groups.append(Group(tuple(chosen), trunk))
        end = begin - 1
    return groups, single


def shared_batches(groups: Sequence[Group], table: Sequence[int], size_of: Callable[[int], int]) -> Iterator[SharedBatch]:
    """Splits groups into batches as `batching.batches` splits rows."""
    packed = [Row(number, group.ids, np.zeros(2, np.uint32)) for number, group in enumerate(groups)]
    for batch in batches(packed, table, size_of, 1):
        members = tuple(groups[row.index] for row in batch.rows)
        rows = [row for group in members for row in group.rows]
        prompts = bucket(len(rows), _COUNTS)
        yield SharedBatch(members, batch.size, batch.length, prompts, bucket(max(len(row.ids) for row in rows), table))


# Numbers of prompts that a batch may have: multiples of 1, 2, 4 … between powers of two.
_COUNTS = sorted({part << octave for octave in range(16) for part in (4, 5, 6, 7)} | {1, 2, 3})


def apart(
    packed: kv_cache.Cache,
    groups: jax.Array,
    trunks: jax.Array,
    starts: jax.Array,
    longest: int,
    room: int,
    mesh: Mesh | None,
) -> kv_cache.Cache:
    """A cache for each prompt, [L, prompts, K, longest + room, D], of one for each group.

    Args:
      packed: of the groups, with `longest + room` slots behind their tokens.
      groups, trunks, starts: int32 [prompts], as `SharedBatch.arrays` has them.
    """
    slots = longest + room
    in_trunk = jnp.arange(slots)[:, None]

    def one(prompt):
        group, trunk, start = prompt

        def cut(x, begin):  # [L, K, slots, D]
            return jax.lax.dynamic_slice(x, (0, group, 0, begin, 0), (x.shape[0], 1, x.shape[2], slots, x.shape[4]))[:, 0]

        return {name: jnp.where(in_trunk < trunk, cut(x, 0), cut(x, start - trunk)) for name, x in packed.items()}

    caches = jax.lax.map(one, (groups, trunks, starts))
    return {name: constrain(x.swapaxes(0, 1), mesh, kv_cache.AXES) for name, x in caches.items()}


def _common(one: np.ndarray, two: np.ndarray) -> int:
    """The number of ids with which both begin."""
    length = min(len(one), len(two))
    differ = one[:length] != two[:length]
    return int(differ.argmax()) if differ.any() else length
