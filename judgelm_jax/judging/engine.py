"""Prompts in, responses out: batches of a few shapes, their programs compiled first, fed so that the device does not wait."""

import collections
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from judgelm_jax.errors import InputError
from judgelm_jax.judging import line_tree, score_tree, sizing
from judgelm_jax.judging.batching import Batch, Prompt, batches, bucket, bucket_lengths
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.programs import DeviceSlots, Programs, whole_pages
from judgelm_jax.judging.responses import NOT_FINITE, Counts, Response
from judgelm_jax.judging.scheduler import schedule
from judgelm_jax.model import attention, parameters
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.parameters import Params
from judgelm_jax.model.placement import Placement


class Engine:
    """Holds the parameters on the mesh and the programs compiled so far. One thread at a time may call `run`."""

    def __init__(
        self,
        params: Params,
        config: ModelConfig,
        mesh: Mesh,
        settings: JudgeConfig,
        tree: score_tree.ScoreTree | line_tree.LineTree,
    ):
        """`tree` holds the lines that may be written: a `LineTree` in mode `distribution`, else a `ScoreTree`."""
        self.config, self.mesh, self.settings, self.tree = config, mesh, settings, tree
        platform = mesh.devices.flat[0].platform
        backend = settings.attention
        if backend == "auto":
            backend = attention.backend_for(platform, config.head_dim, settings.dtype)
        try:
            attention.refuse(backend, config.head_dim, settings.dtype, platform)
        except ValueError as error:
            raise InputError(f"--attention={backend}: {error}; choose another") from error
        self.reserved = settings.max_new_tokens if settings.mode == "explain" else tree.longest
        if self.reserved >= config.context:
            raise InputError(
                f"the response may have {self.reserved} tokens and the context of the model is {config.context}: no prompt "
                "fits; choose a smaller --max_new_tokens"
            )
        self.prompt_budget = config.context - self.reserved
        self.counts = Counts()
        unstacked = platform == "cpu"  # its matrix products copy what is a part of a larger array
        self.programs = Programs(config, Placement(mesh, backend), settings, tree, unstacked, self.counts)
        self._devices = mesh.shape["data"] * mesh.shape["fsdp"]  # that a batch is split over
        self._prefill_tokens = sizing.prefill_tokens(platform)
        self._buckets_per_octave = sizing.buckets_per_octave(backend)
        self.load(params)

    def load(self, params: Params) -> None:
        """Takes other parameters of the same shapes."""
        self.params = parameters.unstacked(params, self.config) if self.programs.unstacked and params else params

    def run(self, prompts: Sequence[Prompt]) -> Iterator[Response]:
        """Responds to every prompt, in the order in which they are done. Prompts have at most `prompt_budget` ids.

        What a prompt gets depends on its ids and its key alone (in float32 up to rounding), not on the other prompts.
        """
        return self._explain(prompts) if self.settings.mode == "explain" else self._score(prompts)

    def _score(self, prompts: Sequence[Prompt]) -> Iterator[Response]:
        buckets = bucket_lengths(self.prompt_budget, self._buckets_per_octave)
        known = self.programs.known_shapes("score")
        most = self.settings.batch_size
        if most is None and isinstance(self.tree, line_tree.LineTree):
            most = sizing.prompts_with_tree(len(self.tree.tokens)) * self._devices
        work = batches(prompts, buckets, self._prefill_tokens, most, self._devices, known)
        self.programs.compile_score(self.params, work)
        waiting: collections.deque[tuple[Batch, jax.Array]] = collections.deque()
        for batch in work:
            self.counts.add_prompts(batch)
            waiting.append((batch, self.programs.score(self.params, batch)))
            if len(waiting) > 2:  # the device has the next batches before the host looks at this one's result
                yield from self._responses(*waiting.popleft())
        while waiting:
            yield from self._responses(*waiting.popleft())

    def _responses(self, batch: Batch, computed: jax.Array) -> Iterator[Response]:
        lines = np.asarray(computed)
        for index, prompt in batch.prompts_by_index:
            if self.settings.mode == "distribution":
                yield Response(prompt.index, [], "stop" if np.isfinite(lines[index]).all() else NOT_FINITE, lines[index])
                continue
            if (lines[index] == score_tree.NOT_FINITE).any():
                yield Response(prompt.index, [], NOT_FINITE)
                continue
            ids = lines[index][lines[index] >= 0].tolist()
            self.counts.generated_tokens += len(ids)
            yield Response(prompt.index, ids, "stop")

    def _explain(self, prompts: Sequence[Prompt]) -> Iterator[Response]:
        if not prompts:
            return
        longest = bucket(max(len(prompt.ids) for prompt in prompts), bucket_lengths(self.prompt_budget))
        context = whole_pages(longest + self.settings.max_new_tokens)
        itemsize = jnp.dtype(self.settings.dtype).itemsize
        per_token = kv_cache.bytes_per_token(self.config, itemsize) / self.mesh.shape["tensor"]
        tokens = sizing.cache_tokens(self.mesh.devices.flat[0].memory_stats(), per_token)
        slots = sizing.slot_count(len(prompts), context, self._devices, tokens, self.settings.batch_size)
        together = sizing.admitted_together(slots, self._devices)
        visible = sizing.visible_lengths(context, self.programs.unstacked)
        buckets = bucket_lengths(longest, self._buckets_per_octave)
        known = self.programs.known_shapes("admit", slots, context)
        work = batches(prompts, buckets, self._prefill_tokens, together, self._devices, known)
        self.programs.compile_decoding(self.params, work, slots, context, visible)
        device = DeviceSlots(self.programs, self.params, slots, context)
        yield from schedule(work, device, slots, visible, self.counts)
