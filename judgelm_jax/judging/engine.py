"""Rows of tokens in, tokens out: compiled programs for a table of shapes, fed so that the device does not wait."""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from judgelm_jax import sharding
from judgelm_jax.config import JudgeConfig, ModelConfig
from judgelm_jax.errors import InputError
from judgelm_jax.judging import line_tree, score_tree, slots
from judgelm_jax.judging.batching import Batch, Row, batches, bucket, bucket_lengths
from judgelm_jax.judging.prefill import prefill
from judgelm_jax.judging.sharing import SharedBatch, apart, grouped, shared_batches
from judgelm_jax.model import attention, llama
from judgelm_jax.model import cache as kv_cache

# Tokens of one prefill on one device, padding included: enough to fill the device, few enough that activations stay small.
_PREFILL_TOKENS = {"cpu": 8192}
_PREFILL_TOKENS_ACCELERATOR = 16384
# Of these, computed together: on CPUs activations of more do not stay in the caches. Decoding wants the larger batch.
_AT_ONCE = {"cpu": 2560}
# Slots of the cache of all rows that decode together, where the free memory of the device is not known.
_CACHE_TOKENS = 32768
_MOST_SLOTS = 256
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
    """What the engine computed: prompt tokens, those of them that were computed with another prompt's, tokens of padding beside
    them, generated tokens, programs and seconds."""

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
        params: llama.Params,
        config: ModelConfig,
        mesh: Mesh,
        settings: JudgeConfig,
        tree: score_tree.ScoreTree | line_tree.LineTree,
    ):
        """`tree` holds the lines that may be written: a `LineTree` in mode `distribution`, else a `ScoreTree`."""
        self.params, self.config, self.mesh, self.settings, self.tree = params, config, mesh, settings, tree
        self._platform = platform = mesh.devices.flat[0].platform
        backend = settings.attention
        if backend == "auto":
            backend = attention.backend_for(platform, config.head_dim, settings.dtype)
        try:
            attention.refuse(backend, config.head_dim, settings.dtype, platform)
        except ValueError as error:
            raise InputError(f"--attention={backend}: {error}; choose another") from error
        self.placement = llama.Placement(mesh, backend)
        self.counts = Counts()
        self.reserved = settings.max_new_tokens if settings.mode == "explain" else tree.longest
        if self.reserved >= config.context:
            raise InputError(
                f"the response may have {self.reserved} tokens and the context of the model is {config.context}: no prompt "
                "fits; choose a smaller --max_new_tokens"
            )
        self.prompt_budget = config.context - self.reserved
        self._multiple = mesh.shape["data"] * mesh.shape["fsdp"]
        self._prefill_tokens = _PREFILL_TOKENS.get(platform, _PREFILL_TOKENS_ACCELERATOR) * self._multiple
        self._shares = self._multiple == 1 and backend in attention.BRANCHING
        self._prefill_at_once = _AT_ONCE.get(platform) if self._multiple == 1 else None
        self._table = bucket_lengths(self.prompt_budget)
        self._packed_table = bucket_lengths(max(self.prompt_budget, self._prefill_tokens))
        self._programs: dict[Hashable, Any] = {}
        self._temperature = None if settings.temperature == 0 else np.float32(settings.temperature)

    def run(self, rows: Sequence[Row]) -> Iterator[Answer]:
        """Answers every row, in the order in which they are done. Rows have at most `prompt_budget` ids.

        What a row gets depends on its ids and its key alone (in float32 up to rounding), not on the other rows.
        """
        return self._explain(rows) if self.settings.mode == "explain" else self._score(rows)

    def _score(self, rows: Sequence[Row]) -> Iterator[Answer]:
        groups, single = grouped(rows, self._packed_table[-1]) if self._shares else ([], rows)
        work: list[tuple[Batch | SharedBatch, Hashable]] = []
        programs: dict[Hashable, Callable[[], Any]] = {}
        for shared in shared_batches(groups, self._packed_table, self._batch_size):
            key: Hashable = ("shared", shared.size, shared.length, shared.prompts, shared.longest)
            programs[key] = functools.partial(self._shared_program, shared)
            work.append((shared, key))
        for batch in batches(single, self._table, self._batch_size, self._multiple):
            key = ("score", batch.size, batch.length)
            programs[key] = functools.partial(self._score_program, batch.size, batch.length)
            work.append((batch, key))
        self._compile(programs)
        waiting: collections.deque[tuple[Batch | SharedBatch, jax.Array]] = collections.deque()
        for some, key in work:
            self._count(some)
            waiting.append((some, self._programs[key](self.params, *self._put(some.arrays), self._temperature)))
            if len(waiting) > 2:  # the device has the next batches before the host looks at this one's result
                yield from self._lines(*waiting.popleft())
        while waiting:
            yield from self._lines(*waiting.popleft())

    def _lines(self, batch: Batch | SharedBatch, lines: jax.Array) -> Iterator[Answer]:
        for row, line in zip(batch.rows, np.asarray(lines), strict=False):
            if self.settings.mode == "distribution":
                yield Answer(row.index, [], "stop", line)
                continue
            ids = line[line >= 0].tolist()
            self.counts.generated_tokens += len(ids)
            yield Answer(row.index, ids, "stop")

    def _explain(self, rows: Sequence[Row]) -> Iterator[Answer]:
        """Continuous batching: rows enter slots as slots get free, the longest prompts first."""
        if not rows:
            return
        longest = max(len(row.ids) for row in rows)
        context = _whole_pages(min(self.config.context, bucket(longest, self._table) + self.settings.max_new_tokens))
        count = self._slot_count(context, len(rows))
        group = max(self._multiple, count // 8 // self._multiple * self._multiple)  # admitted together
        waiting = collections.deque(
            batches(rows, self._table, lambda length: min(group, self._batch_size(length)), self._multiple)
        )
        views = sorted({context} | {v for v in (context // 4, context // 2) if context >= 1024})
        programs: dict[Hashable, Callable[[], Any]] = {("empty", count, context): lambda: self._empty_program(count, context)}
        for batch in waiting:
            key = ("admit", count, context, batch.size, batch.length)
            programs[key] = functools.partial(self._admit_program, count, context, batch.size, batch.length)
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
                places = np.full(batch.size, count, np.int32)
                places[: len(taken)] = taken
                self._count(batch)
                admit = self._programs["admit", count, context, batch.size, batch.length]
                state = admit(self.params, state, *self._put((*batch.arrays, places)), self._temperature)
                for slot, row in zip(taken, batch.rows, strict=True):
                    occupants[slot], lengths[slot] = row, len(row.ids)
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

    def _batch_size(self, length: int) -> int:
        return self.settings.batch_size or max(1, self._prefill_tokens // length)

    def _count(self, batch: Batch | SharedBatch) -> None:
        prompt = sum(len(row.ids) for row in batch.rows)
        shared = sum(group.saved for group in batch.groups) if isinstance(batch, SharedBatch) else 0
        self.counts.prompt_tokens += prompt
        self.counts.shared_tokens += shared
        self.counts.padding_tokens += batch.size * batch.length - (prompt - shared)

    def _compile(self, programs: dict[Hashable, Callable[[], Any]]) -> None:
        """Compiles those that are new, in parallel, before any of them is needed."""
        new = {key: lower for key, lower in programs.items() if key not in self._programs}
        if not new:
            return
        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            self._programs.update(zip(new, pool.map(lambda lower: lower(), new.values()), strict=True))
        self.counts.programs += len(new)
        self.counts.compile_seconds += time.perf_counter() - start

    def _score_program(self, size: int, length: int) -> Any:
        dtype = jnp.dtype(self.settings.dtype)

        def score(params, tokens, lengths, keys, temperature):
            params = self._for_decoding(params)
            room = _whole_pages(length + self._room) - length
            last, cache = prefill(params, self.config, self.placement, tokens, lengths, room, dtype, self._prefill_at_once)
            return self._answer(params, cache, lengths, last, keys, temperature)

        everywhere = NamedSharding(self.mesh, PartitionSpec())  # each process reads all results
        jitted = jax.jit(score, out_shardings=everywhere)
        return jitted.lower(self.params, *self._batch_shapes(size, length), self._temperature).compile()

    def _shared_program(self, batch: SharedBatch) -> Any:
        dtype = jnp.dtype(self.settings.dtype)
        slots = batch.length + batch.longest + self._room

        def score(params, tokens, positions, branches, groups, trunks, starts, lengths, keys, temperature):
            params = self._for_decoding(params)
            packed = kv_cache.empty(self.config, batch.size, slots, dtype, self.mesh)
            documents = llama.Documents(positions, branches, trunk=True)
            hidden, packed = llama.forward(
                params, self.config, tokens, cache=packed, placement=self.placement, documents=documents
            )
            cache = apart(packed, groups, trunks, starts, batch.longest, self._room, self.mesh)
            last = hidden[groups, starts + lengths - 1 - trunks]
            return self._answer(params, cache, lengths, last, keys, temperature)

        shapes = [self._shape(x.shape, ("batch", *[None] * (x.ndim - 1)), x.dtype) for x in batch.arrays]
        return jax.jit(score).lower(self.params, *shapes, self._temperature).compile()

    def _answer(self, params, cache, lengths, last, keys, temperature):
        """The lines, or their probabilities, of prompts with this cache and this last hidden state [B, E]."""
        tree = self.tree
        if isinstance(tree, line_tree.LineTree):
            return line_tree.log_probabilities(params, self.config, self.placement, tree, cache, lengths, last)
        first = llama.head(params, last)
        return score_tree.decode(params, self.config, self.placement, tree, cache, lengths, first, keys, temperature)

    @property
    def _room(self) -> int:
        """Slots of a cache behind the longest prompt."""
        return len(self.tree.tokens) if isinstance(self.tree, line_tree.LineTree) else self.tree.longest

    def _empty_program(self, count: int, context: int) -> Any:
        dtype = jnp.dtype(self.settings.dtype)
        make = functools.partial(slots.empty, self.config, count, context, self.settings.max_new_tokens, dtype)
        return jax.jit(make, out_shardings=self._state_shardings()).lower().compile()

    def _admit_program(self, count: int, context: int, size: int, length: int) -> Any:
        admit = functools.partial(slots.admit, config=self.config, placement=self.placement)
        shapes = (*self._batch_shapes(size, length), self._shape((size,), ("batch",), np.int32))
        jitted = jax.jit(admit, donate_argnums=1, out_shardings=self._state_shardings())
        return jitted.lower(self.params, self._state_shapes(count, context), *shapes, self._temperature).compile()

    def _decode_program(self, count: int, context: int, view: int) -> Any:
        def decode(params, state, temperature):
            params = self._for_decoding(params)
            return slots.decode(params, state, temperature, self.config, self.placement, _DECODE_STEPS, view)

        jitted = jax.jit(decode, donate_argnums=1, out_shardings=self._state_shardings())
        return jitted.lower(self.params, self._state_shapes(count, context), self._temperature).compile()

    def _for_decoding(self, params: llama.Params) -> llama.Params:
        return llama.unstacked(params, self.config) if self._platform == "cpu" else params

    def _shape(self, shape: tuple[int, ...], axes: sharding.LogicalAxes, dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.sharding(self.mesh, axes))

    def _batch_shapes(self, size: int, length: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        return (
            self._shape((size, length), ("batch", "sequence"), np.int32),
            self._shape((size,), ("batch",), np.int32),
            self._shape((size, 2), ("batch", None), np.uint32),
        )

    def _state_shardings(self) -> slots.State:
        return jax.tree.map(lambda axes: sharding.sharding(self.mesh, axes), slots.AXES, is_leaf=lambda x: isinstance(x, tuple))

    def _state_shapes(self, count: int, context: int) -> slots.State:
        dtype = jnp.dtype(self.settings.dtype)
        shapes = jax.eval_shape(lambda: slots.empty(self.config, count, context, self.settings.max_new_tokens, dtype))
        return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, self._state_shardings())

    def _put(self, arrays: tuple[np.ndarray, ...]) -> list[jax.Array]:
        """Batch arrays on the mesh, rows split over it."""
        return [jax.device_put(x, NamedSharding(self.mesh, sharding.spec(("batch",) + (None,) * (x.ndim - 1)))) for x in arrays]


def _whole_pages(slots: int) -> int:
    """The slots of a cache that kernels which read only the used ones can divide into pages."""
    return -(-slots // attention.PAGE) * attention.PAGE
