"""Prompts sorted into batches from a small table of shapes, in which the prefixes that prompts share are there once.

All pairs of N answers to a question ask 2 × (N choose 2) prompts in both arrangements, and N - 1 of them have system text,
question and first answer in common:
```
                                  ┌ answer B, end          Everything but attention is computed for the tokens of this tree,
system text ─┬ question, answer A ┼ answer C, end          packed into one token row without padding. For attention, and in
             │                    └ answer D, end          the cache, each prompt gets a row of its own, as if it were alone.
             └ question, answer B ─ answer A, end
```
A batch is split over the devices along `data` and `fsdp`; each has one token row, its device batch. Imports no JAX.
"""

import bisect
import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from judgelm_jax.verdicts.score_lines import LineForm

_SHORTEST = 64
_PER_OCTAVE = 8  # buckets between a power of two and the next: padding to the next one is at most 1/9
# Prompts belong together that have in common, beyond what all have, this part of what is left of them.
_ALIKE = 0.1
# Of prompts that have much in common, rows for attention and cache may hold at most this many times the tokens that are
# computed, before padding of rows and of their number.
_MOST_REPEATED = 2
# A batch takes the shape of another one, so that one program computes both, where it is larger by no more than this: in
# tokens, and in rows for attention and cache.
_MORE_TOKENS, _MORE_ROWS = 0.1, 0.25
# Buckets for the number of prompts in a device batch: each up to 8, then four to an octave.
_PROMPT_COUNTS = [*range(1, 4), *(part << octave for octave in range(16) for part in range(4, 8))]

# Device batches, tokens of each one's row, prompts of each, tokens of the longest prompt.
Shape = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Prompt:
    """The tokens `ids` int32 [tokens] of a prompt, and its `key` uint32 [2] for sampling; `index` is the caller's, and `form`
    says which lines may follow it."""

    index: int
    ids: np.ndarray
    key: np.ndarray
    form: LineForm | None = None


class TreeArrays(NamedTuple):
    """How prompts are packed into token rows: int32 arrays of the host, as `model.views.PromptTree` describes them."""

    indices: np.ndarray
    shared: np.ndarray
    ends: np.ndarray
    positions: np.ndarray
    sources: np.ndarray


@dataclasses.dataclass(frozen=True)
class Batch:
    """Prompts that are computed together, as one device batch for each device that the batch is split over.

    Padding fills the tree of a device batch up to `row_length` tokens, its prompts up to `prompts`, and each prompt up to
    `prompt_length` tokens.
    """

    device_batches: tuple[tuple[Prompt, ...], ...]
    row_length: int
    prompts: int
    prompt_length: int

    @property
    def shape(self) -> Shape:
        """Batches of one shape are computed by one program."""
        return len(self.device_batches), self.row_length, self.prompts, self.prompt_length

    @property
    def capacity(self) -> int:
        """The number of prompts that the arrays hold, padding among them."""
        return len(self.device_batches) * self.prompts

    @property
    def prompts_by_index(self) -> list[tuple[int, Prompt]]:
        """Each prompt and its index among the `capacity` prompts of the arrays."""
        return [
            (number * self.prompts + offset, prompt)
            for number, own in enumerate(self.device_batches)
            for offset, prompt in enumerate(own)
        ]

    @property
    def tree_tokens(self) -> int:
        """Of all trees, without padding."""
        return sum(_tree_size(own) for own in self.device_batches)

    @functools.cached_property
    def arrays(self) -> tuple[np.ndarray, TreeArrays, np.ndarray, np.ndarray]:
        """Token rows int32 [device batches, row_length] and how prompts are packed in them; of all prompts, lengths int32
        [capacity] and keys uint32 [capacity, 2]. A prompt that is padding has one token."""
        count = len(self.device_batches)
        tokens, positions, sources = np.zeros((3, count, self.row_length), np.int32)
        indices = np.zeros((count, self.prompts, self.prompt_length), np.int32)
        shared = np.full((count, self.prompts), self.prompt_length, np.int32)
        lengths = np.ones((count, self.prompts), np.int32)
        keys = np.zeros((count, self.prompts, 2), np.uint32)
        for row, own in enumerate(self.device_batches):
            end, before = 0, np.zeros(0, np.int32)
            for number, prompt in enumerate(own):
                prefix, length = _common_prefix(before, prompt.ids), len(prompt.ids)
                start, end = end, end + length - prefix
                tokens[row, start:end] = prompt.ids[prefix:]
                positions[row, start:end] = np.arange(prefix, length)
                sources[row, start:end] = number * self.prompt_length + np.arange(prefix, length)
                indices[row, number, :prefix] = indices[row, number - 1, :prefix]
                indices[row, number, prefix:length] = np.arange(start, end)
                shared[row, number], lengths[row, number], keys[row, number] = prefix, length, prompt.key
                before = prompt.ids
        ends = np.take_along_axis(indices, lengths[..., None] - 1, axis=2)[..., 0]
        return tokens, TreeArrays(indices, shared, ends, positions, sources), lengths.reshape(-1), keys.reshape(-1, 2)


def bucket_lengths(most: int, per_octave: int = _PER_OCTAVE) -> list[int]:
    """Buckets, ascending: `per_octave` lengths between a power of two and the next, from 64 up to `most`."""
    lengths = []
    octave = _SHORTEST
    while octave < most:
        lengths += [octave + octave * part // per_octave for part in range(per_octave)]
        octave *= 2
    return [length for length in lengths if length < most] + [most]


def bucket(length: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `length`."""
    return buckets[bisect.bisect_left(buckets, length)]


def batches(
    prompts: Sequence[Prompt], buckets: Sequence[int], tokens: int, most: int | None, devices: int, known: Iterable[Shape] = ()
) -> list[Batch]:
    """Splits prompts into batches, the longest prompts first and those with a common prefix together.

    Args:
      buckets: the lengths to which padding may fill prompts up, ascending.
      tokens: of the tree of one device batch, at most, unless one prompt has more.
      most: the number of prompts that a batch may have, rounded up to `devices`; None: any.
      devices: that a batch is split over.
      known: shapes that are taken before new ones, where they fit.
    """
    # A few prompts are spread over the devices by their number, so a device batch can have more than `tokens`.
    row_buckets = bucket_lengths(4 * max(tokens, buckets[-1]))
    most_of_device = None if most is None else -(-most // devices)
    found = []
    octaves: dict[int, list[Prompt]] = {}
    for prompt in prompts:
        octaves.setdefault(max(_SHORTEST, len(prompt.ids) - 1).bit_length(), []).append(prompt)
    for octave in sorted(octaves, reverse=True):
        own = _device_batches(octaves[octave], row_buckets, tokens, most_of_device)
        for together in _by_devices(own, devices, most_of_device):
            count = bucket(max(map(len, together)), _PROMPT_COUNTS)
            length = bucket(max(len(prompt.ids) for one in together for prompt in one), buckets)
            row_length = bucket(max(map(_tree_size, together)), row_buckets)
            count = count if most_of_device is None else min(count, most_of_device)
            found.append(Batch(tuple(map(tuple, together)), row_length, count, length))
    return _with_fewer_shapes(found, known)


def _with_fewer_shapes(found: list[Batch], known: Iterable[Shape]) -> list[Batch]:
    """The same batches, of which many get the shape of a larger one."""
    shapes = list(known)
    fitted: dict[int, Batch] = {}
    largest_first = sorted(
        range(len(found)), key=lambda index: (-found[index].row_length, -found[index].prompts * found[index].prompt_length)
    )
    for index in largest_first:
        batch = found[index]
        fits = [
            (row_length, prompts, prompt_length)
            for devices, row_length, prompts, prompt_length in shapes
            if devices == len(batch.device_batches)
            and batch.row_length <= row_length <= (1 + _MORE_TOKENS) * batch.row_length
            and batch.prompts <= prompts
            and batch.prompt_length <= prompt_length
            and prompts * prompt_length <= (1 + _MORE_ROWS) * batch.prompts * batch.prompt_length
        ]
        if fits:
            row_length, prompts, prompt_length = min(fits, key=lambda shape: (shape[0], shape[1] * shape[2]))
            batch = dataclasses.replace(batch, row_length=row_length, prompts=prompts, prompt_length=prompt_length)
        else:
            shapes.append(batch.shape)
        fitted[index] = batch
    return [fitted[index] for index in range(len(found))]


def _by_devices(device_batches: Sequence[list[Prompt]], devices: int, most: int | None) -> Iterator[list[list[Prompt]]]:
    """One device batch for each device at a time; where there are fewer at the end, their prompts are spread evenly."""
    for start in range(0, len(device_batches), devices):
        together = list(device_batches[start : start + devices])
        yield together if len(together) == devices else _spread_evenly(together, devices, most)


def _spread_evenly(device_batches: Sequence[list[Prompt]], devices: int, most: int | None) -> list[list[Prompt]]:
    """The same prompts, cut where the tokens of their tree are shared out evenly; by number where a device may have `most`."""
    prompts = [prompt for own in device_batches for prompt in own]
    sizes = [1] * len(prompts)
    if most is None:
        sizes = [len(prompt.ids) for prompt in prompts]
        for number, (before, prompt) in enumerate(itertools.pairwise(prompts), start=1):
            sizes[number] -= _common_prefix(before.ids, prompt.ids)
    middles = np.cumsum(sizes) - np.asarray(sizes) / 2
    of_device = np.minimum(middles * devices // max(1, sum(sizes)), devices - 1).astype(int)
    shares = ([prompt for prompt, own in zip(prompts, of_device, strict=True) if own == n] for n in range(devices))
    return [sorted(share, key=_alphabetical) for share in shares]


def _device_batches(prompts: Sequence[Prompt], row_buckets: Sequence[int], tokens: int, most: int | None) -> list[list[Prompt]]:
    """Prompts of the trees of one device each, in the order of their ids."""
    found: list[list[Prompt]] = []
    size = longest = 0
    for prompt in _similar_together(prompts):
        length = len(prompt.ids)
        if found:
            last = found[-1]
            own, longest = length - _common_prefix(last[-1].ids, prompt.ids), max(longest, length)
            repeated = (len(last) + 1) * bucket(longest, row_buckets) > _MOST_REPEATED * tokens
            if size + own <= tokens and len(last) != most and not repeated:
                last.append(prompt)
                size += own
                continue
        found.append([prompt])
        size = longest = length
    return [sorted(own, key=_alphabetical) for own in found]


def _similar_together(prompts: Sequence[Prompt]) -> list[Prompt]:
    """In the order of their ids, prompts with a common prefix are neighbours; families of neighbours that have much in common
    are then ordered by length, the longest first."""
    ordered = sorted(prompts, key=_alphabetical)
    common = [0, *(_common_prefix(one.ids, two.ids) for one, two in itertools.pairwise(ordered))]
    everywhere = min(common[1:], default=0)
    families: list[list[Prompt]] = []
    for prompt, shared in zip(ordered, common, strict=False):
        if families and shared - everywhere > _ALIKE * (len(prompt.ids) - everywhere):
            families[-1].append(prompt)
        else:
            families.append([prompt])
    families.sort(key=lambda family: -max(len(prompt.ids) for prompt in family))
    return [prompt for family in families for prompt in family]


def _alphabetical(prompt: Prompt) -> bytes:
    return prompt.ids.astype(">i4").tobytes()


def _tree_size(prompts: Sequence[Prompt]) -> int:
    """Tokens of the tree of prompts that are in the order of their ids."""
    shared = sum(_common_prefix(one.ids, two.ids) for one, two in itertools.pairwise(prompts))
    return sum(len(prompt.ids) for prompt in prompts) - shared


def _common_prefix(one: np.ndarray, two: np.ndarray) -> int:
    """The number of ids with which both begin."""
    length = min(len(one), len(two))
    differ = one[:length] != two[:length]
    return int(differ.argmax()) if differ.any() else length
