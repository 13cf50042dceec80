"""Prompts in, responses out: batches of a few shapes, their programs compiled first, fed so that the device does not wait."""

import collections
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from judgelm_jax.errors import InputError
from judgelm_jax.judging import across_hosts, constrained_decoding, sizing
from judgelm_jax.judging.batching import Batch, Prompt, batches, bucket, bucket_lengths
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.programs import DeviceSlots, Programs, whole_pages
from judgelm_jax.judging.responses import NOT_FINITE, Counts, Response
from judgelm_jax.judging.scheduler import schedule
from judgelm_jax.judging.trees import Trees
from judgelm_jax.model import attention, parameters
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.parameters import Params
from judgelm_jax.model.placement import Placement
from judgelm_jax.verdicts import LineForm


class Engine:
    """Holds the parameters on the mesh and the programs compiled so far. One thread at a time may call `run`."""

    def __init__(
        self,
        params: Params,
        config: ModelConfig,
        mesh: Mesh,
        settings: JudgeConfig,
        trees: Trees,
    ):
        """`trees` hold the lines that may be written behind a prompt, by form."""
        self.config, self.mesh, self.settings, self.trees = config, mesh, settings, trees
        platform = mesh.devices.flat[0].platform
        backend = settings.attention
        if backend == "auto":
            backend = attention.backend_for(platform, config.head_dim, settings.dtype, config.limits())
        try:
            attention.refuse(backend, config.head_dim, settings.dtype, platform, config.limits())
        except ValueError as error:
            raise InputError(f"--attention={backend}: {error}; choose another") from error
        if settings.mode == "explain":
            self._room_before(settings.max_new_tokens)
        self.counts = Counts()
        unstacked = platform == "cpu"  # its matrix products copy what is a part of a larger array
        self.programs = Programs(config, Placement(mesh, backend), settings, unstacked, self.counts)
        self._devices = mesh.shape["data"] * mesh.shape["fsdp"]  # that a batch is split over
        self._prefill_tokens = sizing.prefill_tokens(platform)
        self._buckets_per_octave = sizing.buckets_per_octave(backend)
        self.load(params)

    def load(self, params: Params) -> None:
        """Takes other parameters of the same shapes."""
        self.params = parameters.unstacked(params, self.config) if self.programs.unstacked and params else params

    def prompt_budget(self, form: LineForm) -> int:
        """The most tokens that a prompt of this form may have.

        Raises:
          InputError: none would fit, or the tokenizer cannot write these lines behind a prompt.
        """
        return self._room_before(
            self.settings.max_new_tokens if self.settings.mode == "explain" else self.trees.of(form).longest
        )

    def _room_before(self, response: int) -> int:
        if response >= self.config.context:
            raise InputError(
                f"the response may have {response} tokens and the context of the model is {self.config.context}: no prompt "
                "fits; choose a smaller --max_new_tokens"
            )
        return self.config.context - response

    def run(self, prompts: Sequence[Prompt]) -> Iterator[Response]:
        """Responds to every prompt, in the order in which they are done. Prompts have at most `prompt_budget` ids.

        What a prompt gets depends on its ids and its key alone (in float32 up to rounding), not on the other prompts.
        """
        return self._explain(prompts) if self.settings.mode == "explain" else self._score(prompts)

    def _score(self, prompts: Sequence[Prompt]) -> Iterator[Response]:
        by_form: dict[LineForm, list[Prompt]] = {}
        for prompt in prompts:
            assert prompt.form is not None
            by_form.setdefault(prompt.form, []).append(prompt)
        work = [(form, self.trees.of(form), self._score_batches(form, own)) for form, own in by_form.items()]
        self.programs.compile_score(self.params, work)
        waiting: collections.deque[tuple[Batch, jax.Array]] = collections.deque()
        for form, batch in ((form, batch) for form, _, batches_of_form in work for batch in batches_of_form):
            self.counts.add_prompts(batch)
            waiting.append((batch, self.programs.score(self.params, form, batch)))
            if len(waiting) > 2:  # the device has the next batches before the host looks at this one's result
                yield from self._responses(*waiting.popleft())
        while waiting:
            yield from self._responses(*waiting.popleft())

    def _score_batches(self, form: LineForm, prompts: Sequence[Prompt]) -> list[Batch]:
        tree, most = self.trees.of(form), self.settings.batch_size
        if most is None and self.settings.mode == "distribution":
            most = sizing.prompts_with_tree(tree.slots) * self._devices
        buckets = bucket_lengths(self.prompt_budget(form), self._buckets_per_octave)
        known = self.programs.known_shapes("score", form)
        return batches(prompts, buckets, self._prefill_tokens, most, self._devices, known)

    def _responses(self, batch: Batch, computed: jax.Array) -> Iterator[Response]:
        lines = np.asarray(computed)
        for index, prompt in batch.prompts_by_index:
            if self.settings.mode == "distribution":
                yield Response(prompt.index, [], "stop" if np.isfinite(lines[index]).all() else NOT_FINITE, lines[index])
                continue
            if (lines[index] == constrained_decoding.NOT_FINITE).any():
                yield Response(prompt.index, [], NOT_FINITE)
                continue
            ids = lines[index][lines[index] >= 0].tolist()
            self.counts.generated_tokens += len(ids)
            yield Response(prompt.index, ids, "stop")

    def _explain(self, prompts: Sequence[Prompt]) -> Iterator[Response]:
        if not prompts:
            return
        most = self._room_before(self.settings.max_new_tokens)
        longest = bucket(max(len(prompt.ids) for prompt in prompts), bucket_lengths(most))
        context = whole_pages(longest + self.settings.max_new_tokens)
        itemsize = jnp.dtype(self.settings.dtype).itemsize
        per_token = kv_cache.bytes_per_token(self.config, itemsize) / self.mesh.shape["tensor"]
        tokens = across_hosts.least(sizing.cache_tokens(self.mesh.local_devices[0].memory_stats(), per_token))
        slots = sizing.slot_count(len(prompts), context, self._devices, tokens, self.settings.batch_size)
        together = sizing.admitted_together(slots, self._devices)
        visible = sizing.visible_lengths(context, self.programs.unstacked)
        buckets = bucket_lengths(longest, self._buckets_per_octave)
        known = self.programs.known_shapes("admit", slots, context)
        work = batches(prompts, buckets, self._prefill_tokens, together, self._devices, known)
        self.programs.compile_decoding(self.params, work, slots, context, visible)
        device = DeviceSlots(self.programs, self.params, slots, context)
        yield from schedule(work, device, slots, visible, self.counts)
