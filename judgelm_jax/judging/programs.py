"""The compiled programs of a judge, one for each shape, and the slots of a device that they decode in."""

import concurrent.futures
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from judgelm_jax.devices import memory, sharding
from judgelm_jax.judging import constrained_decoding, line_tree, score_chain, sizing, slots
from judgelm_jax.judging.batching import Batch, Shape
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.prefill import prefill
from judgelm_jax.judging.responses import NOT_FINITE, Counts
from judgelm_jax.judging.scheduler import DECODE_STEPS
from judgelm_jax.judging.trees import Tree
from judgelm_jax.model import decoder
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.parameters import Params
from judgelm_jax.model.placement import Placement
from judgelm_jax.processes.store import wait_for_all
from judgelm_jax.verdicts.score_lines import LineForm

Key = tuple[Any, ...]  # what a program does, and its shapes
# Batches of prompts of each form, whose lines are those of the tree.
ScoreWork = Sequence[tuple[LineForm, Tree, Sequence[Batch]]]


# What XLA is told on GPUs. It would search among Triton's matrix products, which takes half of the time of compiling and found
# nothing faster than cuBLAS's (scores of 7B on an H200: 5.8 s instead of 5.4). And products with the same left side it would
# merge into one by copying their weights together, each time anew.
GPU_OPTIONS: dict[str, bool | int] = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_dot_merger_threshold_mb": 0}
# Of int8, Triton alone multiplies without writing it down as bfloat16 first: weights, and a cache whose heads several query
# heads share. Where each has its own, their products are no matrix products, and XLA reads int8 where it lies.
GPU_OPTIONS_INT8 = GPU_OPTIONS | {"xla_gpu_enable_triton_gemm": True}


class Programs:
    """The programs of one model on one mesh, compiled so far."""

    def __init__(
        self,
        config: ModelConfig,
        placement: Placement,
        settings: JudgeConfig,
        counts: Counts,
    ):
        """Programs and seconds are added to `counts`.

        Parameters and cache are unstacked: matrix products copy what is a part of a larger array, on CPUs and GPUs each time
        that they read it.
        """
        assert placement.mesh is not None
        self.config, self.placement, self.mesh = config, placement, placement.mesh
        self.settings, self.counts = settings, counts
        self._compiled: dict[Key, Any] = {}
        self._states: dict[tuple[int, int], slots.State] = {}
        self.launched: Callable[[Any], None] = lambda result: None  # is told what the devices compute now
        multiplies_slots = settings.slots_dtype == "int8" and config.num_heads > config.num_kv_heads
        self._jit = self._compiled_for(config.int8)
        self._jit_over_slots = self._compiled_for(config.int8 or multiplies_slots)
        self._temperature = None if settings.temperature == 0 else np.float32(settings.temperature)

    def _compiled_for(self, int8: bool) -> Callable[..., Any]:
        """`jax.jit` for the platform of the mesh. `int8`: whether what is multiplied may be int8."""
        on_gpus = self.mesh.devices.flat[0].platform == "gpu"
        options: Any = GPU_OPTIONS_INT8 if int8 else GPU_OPTIONS
        return functools.partial(jax.jit, compiler_options=options if on_gpus else None)

    def known_shapes(self, *key: Any) -> list[Shape]:
        """The shapes of batches for which there is a program whose key begins so."""
        return [own[len(key) :] for own in self._compiled if own[: len(key)] == key]

    def whole_pages(self, slots: int) -> int:
        """The slots of a cache that kernels which read only the used ones can divide into pages."""
        page = sizing.page(self.placement.attention)
        return -(-slots // page) * page

    def compile_score(self, params: Params, work: ScoreWork, room: float | None) -> float | None:
        """Compiles what `score` needs for this work. Programs that need more than `room` bytes are forgotten.

        Returns:
          bytes that the largest of the programs needs on a device beside the parameters; None where the compiler refuses one
          that needs more than a device has.
        """
        lower: dict[Key, Callable[[], Any]] = {
            ("score", form, *batch.shape): functools.partial(self.lower_score, params, tree, batch)
            for form, tree, batches in work
            for batch in batches
        }
        return self._compile(lower, room)

    def compile_decoding(
        self, params: Params, batches: Sequence[Batch], count: int, context: int, room: float | None
    ) -> float | None:
        """Compiles what `DeviceSlots` needs: `count` slots with a cache of `context` slots each; else as `compile_score`."""
        state = memory.bytes_on_device(self._state_shapes(count, context))
        lower: dict[Key, Callable[[], Any]] = {("empty", count, context): functools.partial(self.lower_empty, count, context)}
        for batch in batches:
            lower["admit", count, context, *batch.shape] = functools.partial(self.lower_admit, params, count, context, batch)
        for names in (DeviceSlots.FINISHED, DeviceSlots.RESULT) if self.mesh.is_multi_process else ():
            lower["gather", count, context, names] = functools.partial(self._lower_gather, count, context, names)
        lower["decode", count, context] = functools.partial(self.lower_decode, params, count, context)
        needed = self._compile(lower, None if room is None else room - state)
        return None if needed is None else needed + state

    def executable(self, *key: Any) -> jax.stages.Compiled | None:
        """A program that has been compiled and fits, by what it does and its shapes."""
        return self._compiled.get(key)

    def score(self, params: Params, form: LineForm, batch: Batch) -> jax.Array:
        """Of each index of the batch, the tokens of a score line (-1 behind its end), or the log-probabilities of a `LineTree`
        or `ScoreChain`."""
        result = self._compiled["score", form, *batch.shape](params, *self._put(batch.arrays), self._temperature)
        self.launched(result)
        return result

    def empty(self, count: int, context: int) -> slots.State:
        """`count` free slots."""
        return self._compiled["empty", count, context]()

    def admit(self, params: Params, state: slots.State, context: int, batch: Batch, slot_of: np.ndarray) -> slots.State:
        """The state with the prompts of a batch in the slots `slot_of`; the state that is given is used up."""
        program = self._compiled["admit", state["length"].shape[0], context, *batch.shape]
        return program(params, state, *self._put((*batch.arrays, slot_of)), self._temperature)

    def decode(self, params: Params, state: slots.State, context: int) -> slots.State:
        """The state after up to `DECODE_STEPS` tokens of each slot; the state that is given is used up."""
        result = self._compiled["decode", state["length"].shape[0], context](params, state, self._temperature)
        self.launched(result)
        return result

    def gather(self, state: slots.State, context: int, names: tuple[str, ...]) -> list[np.ndarray]:
        """The arrays `names` of a state, whole: on every process, where the mesh has several."""
        arrays = [state[name] for name in names]
        if self.mesh.is_multi_process:
            arrays = self._compiled["gather", state["length"].shape[0], context, names](arrays)
        return [np.asarray(array) for array in arrays]

    def _compile(self, lower: Mapping[Key, Callable[[], jax.stages.Lowered]], room: float | None) -> float | None:
        """Compiles those that are new, in parallel, before any of them is needed; returns as `compile_score`."""
        new = {key: one for key, one in lower.items() if key not in self._compiled}
        if new:
            start = time.perf_counter()
            with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
                found = dict(zip(new, pool.map(lambda one: memory.compile_or_none(one()), new.values()), strict=True))
            if self.mesh.is_multi_process:
                wait_for_all("compiled")
            self._compiled.update({key: one for key, one in found.items() if one is not None})
            self.counts.programs += len(new)
            self.counts.compile_seconds += time.perf_counter() - start
        if any(key not in self._compiled for key in lower):
            return None
        needed = {key: memory.beside_arguments(self._compiled[key]) for key in lower if key[0] != "empty"}
        for key, size in needed.items():
            if room is not None and size > room:
                del self._compiled[key]
        return float(max(needed.values(), default=0))

    def lower_score(self, params: Params, lines: Tree, batch: Batch) -> jax.stages.Lowered:
        dtype = jnp.dtype(self.settings.dtype)
        free_slots = self.whole_pages(batch.prompt_length + lines.slots) - batch.prompt_length

        def score(params, tokens, tree, lengths, keys, temperature):
            last, cache = prefill(params, self.config, self.placement, tokens, tree, free_slots, dtype)
            return self._lines(params, lines, cache, lengths, last, keys, temperature)

        everywhere = NamedSharding(self.mesh, PartitionSpec())  # each process reads all results
        jitted = self._jit(score, out_shardings=everywhere)
        return jitted.lower(params, *self._shapes(batch.arrays), self._temperature)

    def _lines(self, params, tree, cache, lengths, last, keys, temperature):
        """The lines, or their probabilities, of prompts with this cache and this last hidden state [B, E]."""
        if isinstance(tree, line_tree.LineTree):
            return line_tree.log_probabilities(params, self.config, self.placement, tree, cache, lengths, last)[0]
        if isinstance(tree, score_chain.ScoreChain):
            return score_chain.log_probabilities(params, self.config, self.placement, tree, cache, lengths, last)
        first = decoder.head(params, self.config, last)
        return constrained_decoding.decode(params, self.config, self.placement, tree, cache, lengths, first, keys, temperature)

    def lower_empty(self, count: int, context: int) -> jax.stages.Lowered:
        shardings = jax.tree.map(lambda x: x.sharding, self._state_shapes(count, context))
        return self._jit(self._make_empty(count, context), out_shardings=shardings).lower()

    def lower_admit(self, params: Params, count: int, context: int, batch: Batch) -> jax.stages.Lowered:
        dtype = jnp.dtype(self.settings.dtype)
        admit = functools.partial(slots.admit, config=self.config, placement=self.placement, dtype=dtype)
        slot_of = jax.ShapeDtypeStruct((batch.capacity,), np.int32)
        state = self._state_shapes(count, context)
        jitted = self._jit(admit, donate_argnums=1, out_shardings=jax.tree.map(lambda x: x.sharding, state))
        return jitted.lower(params, state, *self._shapes((*batch.arrays, slot_of)), self._temperature)

    def lower_decode(self, params: Params, count: int, context: int) -> jax.stages.Lowered:
        def decode(params, state, temperature):
            return slots.decode(params, state, temperature, self.config, self.placement, DECODE_STEPS)

        state = self._state_shapes(count, context)
        jitted = self._jit_over_slots(decode, donate_argnums=1, out_shardings=jax.tree.map(lambda x: x.sharding, state))
        return jitted.lower(params, state, self._temperature)

    def _lower_gather(self, count: int, context: int, names: tuple[str, ...]) -> jax.stages.Lowered:
        shapes = self._state_shapes(count, context)
        everywhere = NamedSharding(self.mesh, PartitionSpec())
        return self._jit(lambda arrays: arrays, out_shardings=everywhere).lower([shapes[name] for name in names])

    def _make_empty(self, count: int, context: int) -> Callable[[], slots.State]:
        dtype = jnp.dtype(self.settings.slots_dtype)
        return functools.partial(slots.empty, self.config, count, context, self.settings.max_new_tokens, dtype)

    def _state_shapes(self, count: int, context: int) -> slots.State:
        """The shapes of a state and where it lies."""
        if (count, context) not in self._states:
            shapes = jax.eval_shape(self._make_empty(count, context))
            self._states[count, context] = jax.tree.map(
                lambda x, axes: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.sharding(self.mesh, axes)),
                shapes,
                slots.axes(shapes),
            )
        return self._states[count, context]

    def _shapes(self, arrays: Any) -> Any:
        """The shapes of a batch's arrays, split over the mesh by their rows."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._split(x)), arrays)

    def _put(self, arrays: Any) -> Any:
        """A batch's arrays on the mesh, split over it by their rows; every process has the whole batch."""
        return jax.tree.map(lambda x: sharding.put(x, self._split(x)), arrays)

    def _split(self, x: Any) -> NamedSharding:
        return sharding.sharding(self.mesh, ("batch", *[None] * (x.ndim - 1)))


class DeviceSlots:
    """The slots of the mesh, as the scheduler sees them (`scheduler.Device`)."""

    FINISHED, RESULT = ("finished",), ("text", "produced", "stopped")

    def __init__(self, programs: Programs, params: Params, count: int, context: int):
        """All free. Their programs have been compiled."""
        self._programs, self._params, self._context = programs, params, context
        self._state = programs.empty(count, context)

    def admit(self, batch: Batch, slots: np.ndarray) -> None:
        self._state = self._programs.admit(self._params, self._state, self._context, batch, slots)

    def decode(self) -> np.ndarray:
        self._state = self._programs.decode(self._params, self._state, self._context)
        return self._programs.gather(self._state, self._context, self.FINISHED)[0]

    def read(self, slots: Sequence[int]) -> list[tuple[list[int], str]]:
        text, produced, stopped = self._programs.gather(self._state, self._context, self.RESULT)
        ends = [NOT_FINITE if produced[slot] < 0 else "stop" if stopped[slot] else "length" for slot in slots]
        return [(text[slot, : max(0, produced[slot])].tolist(), end) for slot, end in zip(slots, ends, strict=True)]
