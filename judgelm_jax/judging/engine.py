"""Rows of tokens in, tokens out: compiled programs for a table of shapes, fed so that the device does not wait."""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from judgelm_jax import sharding
from judgelm_jax.errors import InputError
from judgelm_jax.judging import line_tree, score_tree, slots
from judgelm_jax.judging.batching import Batch, Row, batches, bucket, bucket_lengths
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.prefill import prefill
from judgelm_jax.model import attention, decoder, parameters
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement

# Tokens of one prefill on one device: enough to fill the device, few enough that activations stay small.
_PREFILL_TOKENS = {"cpu": 8192}
_PREFILL_TOKENS_ACCELERATOR = 16384
# Slots of the cache of all rows that decode together, where the free memory of the device is not known.
_CACHE_TOKENS = 32768
_MOST_SLOTS = 256
# Lengths, between a power of two and the next, to which prompts are filled up for attention and cache: few, and few programs,
# where attention leaves out what only fills up.
_LENGTHS_PER_OCTAVE = {"blocked": 2}
_LENGTHS_PER_OCTAVE_ELSE = 8
_DECODE_STEPS = 16  # between two looks at which rows have ended


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was generated for the row with this `index`; `finish` is `stop` or `length`.

    `log_probabilities`: float32 [lines] of a `LineTree`, in mode `distribution`; nothing is generated there.
    """

    index: int
    ids: list[int]
    finish: str
    log_probabilities: np.ndarray | None = None


@dataclasses.dataclass
class Counts:
    """What the engine computed: prompt tokens, those of them that were computed as another prompt's, too, tokens that only
    filled batches up, generated tokens, programs and seconds."""

    prompt_tokens: int = 0
    shared_tokens: int = 0
    padding_tokens: int = 0
    generated_tokens: int = 0
    programs: int = 0
    compile_seconds: float = 0.0
    slot_steps: int = 0
    busy_slot_steps: int = 0

    @property
    def padding(self) -> float:
        """The share of padding in all prompt tokens that were computed."""
        return self.padding_tokens / max(1, self.padding_tokens + self.prompt_tokens - self.shared_tokens)


class Engine:
    """Holds the parameters on the mesh and the programs compiled so far. One thread at a time may call `run`."""

    def __init__(
        self,
        params: parameters.Params,
        config: ModelConfig,
        mesh: Mesh,
        settings: JudgeConfig,
        tree: score_tree.ScoreTree | line_tree.LineTree,
    ):
        """`tree` holds the lines that may be written: a `LineTree` in mode `distribution`, else a `ScoreTree`."""
        self.config, self.mesh, self.settings, self.tree = config, mesh, settings, tree
        platform = mesh.devices.flat[0].platform
        self._unstacked = platform == "cpu"  # its matrix products copy what is a part of a larger array
        self.load(params)
        backend = settings.attention
        if backend == "auto":
            backend = attention.backend_for(platform, config.head_dim, settings.dtype)
        try:
            attention.refuse(backend, config.head_dim, settings.dtype, platform)
        except ValueError as error:
            raise InputError(f"--attention={backend}: {error}; choose another") from error
        self.placement = Placement(mesh, backend)
        self.counts = Counts()
        self.reserved = settings.max_new_tokens if settings.mode == "explain" else tree.longest
        if self.reserved >= config.context:
            raise InputError(
                f"the response may have {self.reserved} tokens and the context of the model is {config.context}: no prompt "
                "fits; choose a smaller --max_new_tokens"
            )
        self.prompt_budget = config.context - self.reserved
        self._multiple = mesh.shape["data"] * mesh.shape["fsdp"]
        self._prefill_tokens = _PREFILL_TOKENS.get(platform, _PREFILL_TOKENS_ACCELERATOR)
        self._per_octave = _LENGTHS_PER_OCTAVE.get(backend, _LENGTHS_PER_OCTAVE_ELSE)
        self._programs: dict[tuple, Any] = {}
        self._temperature = None if settings.temperature == 0 else np.float32(settings.temperature)

    def load(self, params: parameters.Params) -> None:
        """Takes other parameters of the same shapes."""
        self.params = parameters.unstacked(params, self.config) if self._unstacked and params else params

    def run(self, rows: Sequence[Row]) -> Iterator[Answer]:
        """Answers every row, in the order in which they are done. Rows have at most `prompt_budget` ids.

        What a row gets depends on its ids and its key alone (in float32 up to rounding), not on the other rows.
        """
        return self._explain(rows) if self.settings.mode == "explain" else self._score(rows)

    def _score(self, rows: Sequence[Row]) -> Iterator[Answer]:
        known = [key[1:] for key in self._programs]
        table = bucket_lengths(self.prompt_budget, self._per_octave)
        work = batches(rows, table, self._prefill_tokens, self.settings.batch_size, self._multiple, known)
        self._compile({("score", *batch.shape): functools.partial(self._score_program, batch) for batch in work})
        waiting: collections.deque[tuple[Batch, jax.Array]] = collections.deque()
        for batch in work:
            self._count(batch)
            lines = self._programs["score", *batch.shape](self.params, *self._put(batch.arrays), self._temperature)
            waiting.append((batch, lines))
            if len(waiting) > 2:  # the device has the next batches before the host looks at this one's result
                yield from self._lines(*waiting.popleft())
        while waiting:
            yield from self._lines(*waiting.popleft())

    def _lines(self, batch: Batch, computed: jax.Array) -> Iterator[Answer]:
        lines = np.asarray(computed)
        for place, row in batch.rows:
            if self.settings.mode == "distribution":
                yield Answer(row.index, [], "stop", lines[place])
                continue
            ids = lines[place][lines[place] >= 0].tolist()
            self.counts.generated_tokens += len(ids)
            yield Answer(row.index, ids, "stop")

    def _explain(self, rows: Sequence[Row]) -> Iterator[Answer]:
        """Continuous batching: rows enter slots as slots get free, the longest prompts first."""
        if not rows:
            return
        longest = bucket(max(len(row.ids) for row in rows), bucket_lengths(self.prompt_budget))
        context = _whole_pages(longest + self.settings.max_new_tokens)
        count = self._slot_count(context, len(rows))
        group = max(self._multiple, count // 8 // self._multiple * self._multiple)  # admitted together
        known = [key[3:] for key in self._programs if key[:3] == ("admit", count, context)]
        table = bucket_lengths(longest, self._per_octave)
        waiting = collections.deque(batches(rows, table, self._prefill_tokens, group, self._multiple, known))
        # Less of the cache is read while all rows are short; but a part of it would be copied first where it is apart.
        views = sorted({context} | {v for v in (context // 4, context // 2) if context >= 1024 and not self._unstacked})
        programs: dict[tuple, Callable[[], Any]] = {("empty", count, context): lambda: self._empty_program(count, context)}
        for batch in waiting:
            programs["admit", count, context, *batch.shape] = functools.partial(self._admit_program, count, context, batch)
        for view in views:
            programs["decode", count, context, view] = functools.partial(self._decode_program, count, context, view)
        self._compile(programs)

        state = self._programs["empty", count, context]()
        occupants: list[Row | None] = [None] * count
        lengths = np.zeros(count, np.int64)
        while waiting or any(row is not None for row in occupants):
            free = [slot for slot, row in enumerate(occupants) if row is None]
            while waiting and len(waiting[0].rows) <= len(free):
                batch = waiting.popleft()
                taken, free = free[: len(batch.rows)], free[len(batch.rows) :]
                places = np.full(len(batch.parts) * batch.prompts, count, np.int32)
                for slot, (place, row) in zip(taken, batch.rows, strict=True):
                    places[place], occupants[slot], lengths[slot] = slot, row, len(row.ids)
                self._count(batch)
                admit = self._programs["admit", count, context, *batch.shape]
                state = admit(self.params, state, *self._put((*batch.arrays, places)), self._temperature)
            busy = [slot for slot, row in enumerate(occupants) if row is not None]
            needed = int(lengths[busy].max()) + _DECODE_STEPS
            view = next((v for v in views if v >= needed), context)
            state = self._programs["decode", count, context, view](self.params, state, self._temperature)
            lengths[busy] += _DECODE_STEPS
            self.counts.slot_steps += count * _DECODE_STEPS
            self.counts.busy_slot_steps += len(busy) * _DECODE_STEPS
            finished = np.asarray(state["finished"])
            ended = [slot for slot in busy if finished[slot]]
            if ended:
                text, produced, stopped = (np.asarray(state[name]) for name in ("text", "produced", "stopped"))
            for slot in ended:
                done, occupants[slot] = occupants[slot], None
                assert done is not None
                ids = text[slot, : produced[slot]].tolist()
                self.counts.generated_tokens += len(ids)
                yield Answer(done.index, ids, "stop" if stopped[slot] else "length")

    def _slot_count(self, context: int, rows: int) -> int:
        if self.settings.batch_size is not None:
            count = self.settings.batch_size
        else:
            statistics = self.mesh.devices.flat[0].memory_stats() or {}
            if "bytes_limit" in statistics:
                itemsize = jnp.dtype(self.settings.dtype).itemsize
                per_token = kv_cache.bytes_per_token(self.config, itemsize) / self.mesh.shape["tensor"]
                # Half of what is free: admission and decoding need room for activations beside the cache.
                tokens = 0.5 * (statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)) / per_token
            else:
                tokens = _CACHE_TOKENS
            count = max(4, min(_MOST_SLOTS, int(tokens // context))) * self._multiple
            count = -(-rows // -(-rows // count))  # as many, but the last rows fill them, too
        return -(-count // self._multiple) * self._multiple

    def _count(self, batch: Batch) -> None:
        prompt = sum(len(row.ids) for _, row in batch.rows)
        self.counts.prompt_tokens += prompt
        self.counts.shared_tokens += prompt - batch.tokens
        self.counts.padding_tokens += len(batch.parts) * batch.size - batch.tokens

    def _compile(self, programs: dict[tuple, Callable[[], Any]]) -> None:
        """Compiles those that are new, in parallel, before any of them is needed."""
        new = {key: lower for key, lower in programs.items() if key not in self._programs}
        if not new:
            return
        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            self._programs.update(zip(new, pool.map(lambda lower: lower(), new.values()), strict=True))
        self.counts.programs += len(new)
        self.counts.compile_seconds += time.perf_counter() - start

    def _score_program(self, batch: Batch) -> Any:
        dtype = jnp.dtype(self.settings.dtype)
        room = _whole_pages(batch.longest + self._room) - batch.longest

        def score(params, tokens, tree, lengths, keys, temperature):
            last, cache = prefill(params, self.config, self.placement, tokens, tree, room, dtype)
            return self._answer(params, cache, lengths, last, keys, temperature)

        everywhere = NamedSharding(self.mesh, PartitionSpec())  # each process reads all results
        jitted = jax.jit(score, out_shardings=everywhere)
        return jitted.lower(self.params, *self._shapes(batch.arrays), self._temperature).compile()

    def _answer(self, params, cache, lengths, last, keys, temperature):
        """The lines, or their probabilities, of prompts with this cache and this last hidden state [B, E]."""
        tree = self.tree
        if isinstance(tree, line_tree.LineTree):
            return line_tree.log_probabilities(params, self.config, self.placement, tree, cache, lengths, last)
        first = decoder.head(params, last)
        return score_tree.decode(params, self.config, self.placement, tree, cache, lengths, first, keys, temperature)

    @property
    def _room(self) -> int:
        """Slots of a cache behind the longest prompt."""
        return len(self.tree.tokens) if isinstance(self.tree, line_tree.LineTree) else self.tree.longest

    def _empty_program(self, count: int, context: int) -> Any:
        dtype = jnp.dtype(self.settings.dtype)
        make = functools.partial(slots.empty, self.config, count, context, self.settings.max_new_tokens, dtype, self._unstacked)
        return jax.jit(make, out_shardings=self._state_shardings(count, context)).lower().compile()

    def _admit_program(self, count: int, context: int, batch: Batch) -> Any:
        admit = functools.partial(slots.admit, config=self.config, placement=self.placement)
        places = jax.ShapeDtypeStruct((len(batch.parts) * batch.prompts,), np.int32)
        jitted = jax.jit(admit, donate_argnums=1, out_shardings=self._state_shardings(count, context))
        state = self._state_shapes(count, context)
        return jitted.lower(self.params, state, *self._shapes((*batch.arrays, places)), self._temperature).compile()

    def _decode_program(self, count: int, context: int, view: int) -> Any:
        def decode(params, state, temperature):
            return slots.decode(params, state, temperature, self.config, self.placement, _DECODE_STEPS, view)

        jitted = jax.jit(decode, donate_argnums=1, out_shardings=self._state_shardings(count, context))
        return jitted.lower(self.params, self._state_shapes(count, context), self._temperature).compile()

    def _state_shardings(self, count: int, context: int) -> slots.State:
        return jax.tree.map(lambda x: x.sharding, self._state_shapes(count, context))

    def _state_shapes(self, count: int, context: int) -> slots.State:
        dtype, most = jnp.dtype(self.settings.dtype), self.settings.max_new_tokens
        shapes = jax.eval_shape(lambda: slots.empty(self.config, count, context, most, dtype, self._unstacked))
        return jax.tree.map(
            lambda x, axes: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.sharding(self.mesh, axes)),
            shapes,
            slots.axes(shapes),
        )

    def _shapes(self, arrays: Any) -> Any:
        """The shapes of a batch's arrays, split over the mesh by their rows."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._split(x)), arrays)

    def _put(self, arrays: Any) -> Any:
        """A batch's arrays on the mesh, split over it by their rows."""
        return jax.tree.map(lambda x: jax.device_put(x, self._split(x)), arrays)

    def _split(self, x: Any) -> NamedSharding:
        return sharding.sharding(self.mesh, ("batch", *[None] * (x.ndim - 1)))


def _whole_pages(slots: int) -> int:
    """The slots of a cache that kernels which read only the used ones can divide into pages."""
    return -(-slots // attention.PAGE) * attention.PAGE
