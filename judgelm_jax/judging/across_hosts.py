"""A judge on the devices of several processes: one keeps the judgments, and all decide the same.

Every process reads and tokenizes the input and makes the same batches of the same prompts in the same order, which depend on
nothing else; of a batch it puts its own devices' part there. What depends on a process alone is told to the others: which
judgments are kept already here, the free memory of its devices in `memory`.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from judgelm_jax.judging import output
from judgelm_jax.records.json_lines import Record


class Shard(Protocol):
    """Where the judgments of a part of the input are kept."""

    done: bytearray  # one byte a record of the whole input: 1 where its judgment is kept
    folder: Path | None  # of the work; None where another process keeps it

    def write(self, index: int, row: Record) -> None:
        """Keeps the judgment of the record with this index."""

    def remaining(self) -> int:
        """How many records of this part have no judgment yet."""

    def finish(self) -> bool:
        """Says that this part is complete; whether the output is there now."""

    def rows(self) -> Iterator[Record]:
        """The judgments that this part has so far."""


class KeptElsewhere:
    """What the other processes have in place of the shard of process 0."""

    def __init__(self, done: bytearray, part: int, parts: int):
        self.done, self._part, self._parts = done, part, parts
        self.folder: Path | None = None

    def write(self, index: int, row: Record) -> None:
        """Notes that there is a judgment."""
        self.done[index] = 1

    def remaining(self) -> int:
        """How many records of this part have no judgment yet."""
        return len(range(self._part, len(self.done), self._parts)) - sum(self.done[self._part :: self._parts])

    def finish(self) -> bool:
        """False: only process 0 knows of the output."""
        return False

    def rows(self) -> Iterator[Record]:
        """None."""
        return iter(())


@contextlib.contextmanager
def opened(
    open_shard: Callable[[], contextlib.AbstractContextManager[output.Shard | None]], records: int, part: int, parts: int
) -> Iterator[Shard | None]:
    """The shard that `open_shard` opens in process 0, and in the others what stands for it; None: the output is complete."""
    if jax.process_count() == 1:
        with open_shard() as own:
            yield own
        return
    state = np.zeros(1 + (records + 7) // 8, np.uint8)  # whether there is a shard, and a bit a record: done
    if jax.process_index() == 0:
        with open_shard() as own:
            if own is not None:
                state[0], state[1:] = 1, np.packbits(np.frombuffer(own.done, np.uint8))
            multihost_utils.broadcast_one_to_all(state)
            yield own
        return
    state = np.asarray(multihost_utils.broadcast_one_to_all(state))
    done = bytearray(np.unpackbits(state[1:], count=records).tobytes())
    yield KeptElsewhere(done, part, parts) if state[0] else None
