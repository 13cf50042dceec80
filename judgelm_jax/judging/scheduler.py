"""Continuous batching: prompts enter the slots of a device as slots become free, the longest prompts first. Imports no JAX.

```
slot 0   prompt·········|generated···→            After every few steps the host looks at which slots have finished. Their
slot 1   prompt···|generated→  prompt··|gen→      responses leave, and the next batch of prompts enters as soon as it finds
slot 2   (free)                                   enough free slots, while the others go on.
```
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from judgelm_jax.judging.batching import Batch, Prompt
from judgelm_jax.judging.responses import Counts, Response

DECODE_STEPS = 16  # of each slot between two looks at which have finished


class Device(Protocol):
    """Slots that decode, one prompt each."""

    def admit(self, batch: Batch, slots: np.ndarray) -> None:
        """Puts the prompts of a batch into free slots. `slots`: int32 [capacity], the slot of each; of padding one too high."""

    def decode(self) -> np.ndarray:
        """Decodes up to `DECODE_STEPS` tokens in each slot.

        Returns:
          bool [slots]: which have finished, the free ones among them.
        """

    def read(self, slots: Sequence[int]) -> list[tuple[list[int], str]]:
        """The ids that were generated in these slots, and `stop`, `length` or `NOT_FINITE`."""


def schedule(batches: Iterable[Batch], device: Device, slots: int, counts: Counts) -> Iterator[Response]:
    """Generates the responses to all prompts, in the order in which they are done.

    Args:
      batches: in the order in which they are admitted.
      slots: of the device, at least as many as a batch has prompts.
      counts: of the work, to which this adds.

    Raises:
      ValueError: a batch has more prompts than there are slots.
    """
    waiting = collections.deque(batches)
    if any(len(batch.prompts_by_index) > slots for batch in waiting):
        raise ValueError(f"a batch has more prompts than the {slots} slots")
    occupants: list[Prompt | None] = [None] * slots
    while waiting or any(prompt is not None for prompt in occupants):
        free = [slot for slot, prompt in enumerate(occupants) if prompt is None]
        while waiting and len(waiting[0].prompts_by_index) <= len(free):
            batch = waiting.popleft()
            taken, free = free[: len(batch.prompts_by_index)], free[len(batch.prompts_by_index) :]
            slot_of = np.full(batch.capacity, slots, np.int32)
            for slot, (index, prompt) in zip(taken, batch.prompts_by_index, strict=True):
                slot_of[index], occupants[slot] = slot, prompt
            counts.add_prompts(batch)
            device.admit(batch, slot_of)
        busy = [slot for slot, prompt in enumerate(occupants) if prompt is not None]
        finished = device.decode()
        counts.slot_steps += slots * DECODE_STEPS
        counts.busy_slot_steps += len(busy) * DECODE_STEPS
        ended = [slot for slot in busy if finished[slot]]
        for slot, (ids, finish) in zip(ended, device.read(ended) if ended else [], strict=True):
            done, occupants[slot] = occupants[slot], None
            assert done is not None
            counts.generated_tokens += len(ids)
            yield Response(done.index, ids, finish)
