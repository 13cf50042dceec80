"""Prompts in, responses out: batches of a few shapes, their programs compiled first, fed so that the device does not wait."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from judgelm_jax.devices import memory
from judgelm_jax.errors import InputError
from judgelm_jax.judging import constrained_decoding, sizing
from judgelm_jax.judging.batching import Batch, Prompt, batches, bucket, bucket_lengths
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.programs import DeviceSlots, Programs, ScoreWork
from judgelm_jax.judging.responses import NOT_FINITE, Counts, Response
from judgelm_jax.judging.scheduler import schedule
from judgelm_jax.judging.trees import Trees
from judgelm_jax.model import attention, parameters
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.parameters import Params
from judgelm_jax.model.placement import Placement
from judgelm_jax.verdicts.score_lines import LineForm

Size = TypeVar("Size")  # of what is computed at once, in one of the modes


class Decoding(NamedTuple):
    """How responses are generated: in `slots` slots of all devices, each with a cache of `context`, entered in batches."""

    slots: int
    context: int
    batches: list[Batch]


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
        self.programs = Programs(config, Placement(mesh, backend), settings, self.counts)
        self._devices = mesh.shape["data"] * mesh.shape["fsdp"]  # that a batch is split over
        self._prefill_tokens = sizing.prefill_tokens(platform)
        self._attention = backend
        self._refused = 0  # sizes that did not fit
        self.load(params)

    def load(self, params: Params) -> None:
        """Takes other parameters of the same shapes, stacked or unstacked; {}: none, to free their memory."""
        self.params = parameters.unstacked(params, self.config) if params else params

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
        with memory.explained(lambda: "take a smaller --batch_size or --device_memory, or split the model (--mesh=tensor:2)"):
            yield from self._explain(prompts) if self.settings.mode == "explain" else self._score(prompts)

    def score_sizes(self, prompts: Sequence[Prompt]) -> Iterator[ScoreWork]:
        """The batches in which lines of scores are written, or their probabilities computed; then smaller and smaller ones."""
        by_form: dict[LineForm, list[Prompt]] = {}
        for prompt in prompts:
            assert prompt.form is not None
            by_form.setdefault(prompt.form, []).append(prompt)
        for tokens in sizing.token_counts(self._prefill_tokens, self._room(), self._prefill_bytes()):
            yield [(form, self.trees.of(form), self._score_batches(form, own, tokens)) for form, own in by_form.items()]

    def decoding_sizes(self, prompts: Sequence[Prompt]) -> Iterator[Decoding]:
        """How responses to these prompts (one or more) are generated; then in fewer and fewer slots."""
        most = self._room_before(self.settings.max_new_tokens)
        longest = bucket(max(len(prompt.ids) for prompt in prompts), bucket_lengths(most))
        context = self.programs.whole_pages(longest + self.settings.max_new_tokens)
        room, per_token = self._room(), self._prefill_bytes()
        for tokens in sizing.token_counts(self._prefill_tokens, None if room is None else room / 2, per_token):
            cache = sizing.cache_tokens(room, self._cache_bytes(self.settings.slots_dtype), tokens * per_token)
            first = sizing.slot_count(len(prompts), context, self._devices, cache, self.settings.batch_size)
            counts = sizing.fewer(first, self._devices) if self.settings.batch_size is None and room is not None else [first]
            for slots in counts:
                together = sizing.admitted_together(slots, self._devices)
                buckets = sizing.length_buckets(longest, self._attention)
                known = self.programs.known_shapes("admit", slots, context)
                yield Decoding(slots, context, batches(prompts, buckets, tokens, together, self._devices, known))

    def _score(self, prompts: Sequence[Prompt]) -> Iterator[Response]:
        if not prompts:
            return
        sizes = self.score_sizes(prompts)
        work = self._that_fits(sizes, lambda work, room: self.programs.compile_score(self.params, work, room))
        waiting: collections.deque[tuple[Batch, jax.Array]] = collections.deque()
        for form, batch in ((form, batch) for form, _, batches_of_form in work for batch in batches_of_form):
            self.counts.add_prompts(batch)
            waiting.append((batch, self.programs.score(self.params, form, batch)))
            if len(waiting) > 2:  # the device has the next batches before the host looks at this one's result
                yield from self._responses(*waiting.popleft())
        while waiting:
            yield from self._responses(*waiting.popleft())

    def _score_batches(self, form: LineForm, prompts: Sequence[Prompt], tokens: int) -> list[Batch]:
        tree, most = self.trees.of(form), self.settings.batch_size
        if most is None and self.settings.mode == "distribution":
            most = sizing.prompts_with_tree(tree.slots, tokens) * self._devices
        buckets = sizing.length_buckets(self.prompt_budget(form), self._attention)
        known = self.programs.known_shapes("score", form)
        return batches(prompts, buckets, tokens, most, self._devices, known)

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
        slots, context, work = self.compile_decoding(self.decoding_sizes(prompts))
        device = DeviceSlots(self.programs, self.params, slots, context)
        yield from schedule(work, device, slots, self.counts)

    def compile_decoding(self, sizes: Iterable[Decoding]) -> Decoding:
        """The first of these sizes whose programs fit the memory of a device; they are compiled then.

        Raises:
          InputError: none fits; says what would.
        """
        return self._that_fits(
            sizes,
            lambda size, room: self.programs.compile_decoding(self.params, size.batches, size.slots, size.context, room),
        )

    def _that_fits(self, sizes: Iterable[Size], compile_size: Callable[[Size, float | None], float | None]) -> Size:
        """The first of these sizes whose programs fit beside the parameters; they are compiled then.

        `compile_size`: of a size and the bytes that there are, those that its programs need on a device; None where their
        compiler refused them.
        """
        room, needed = self._room(), None
        waiting = iter(sizes)
        # So many did not fit before: the same again would compile for nothing. One is tried in any case.
        *_, first = itertools.islice(waiting, self._refused + 1)
        for number, size in enumerate(itertools.chain([first], waiting), start=self._refused):
            needed = compile_size(size, room)
            if needed is not None and (room is None or needed <= room):
                self._refused = number
                return size
        raise InputError(self._too_large(needed, room))

    def _too_large(self, needed: float | None, room: float | None) -> str:
        """What is said where not even the smallest programs fit."""
        held = memory.bytes_on_device(self.params)
        total = held + (needed or 0.0)
        has = "" if room is None else f"{memory.shown(held + room)} of a device do not suffice: "
        uses = f"the parameters take {memory.shown(held)} on each"
        if needed is None:
            return f"{has}{uses} and the smallest batch does not compile; split the model over devices, as --mesh=tensor:2"
        split = sizing.devices_that_hold(total, self.mesh.shape["tensor"], held + (room or 0.0), self.config.num_kv_heads)
        over = "" if split is None else f", or over {split} devices with --mesh=tensor:{split}"
        shorter = "; a smaller --max_new_tokens needs less" if self.settings.mode == "explain" else ""
        smallest = f"the smallest batch {memory.shown(needed)}; it fits in {memory.shown(total)}"
        return f"{has}{uses}, {smallest}{over}{shorter}"

    def _room(self) -> float | None:
        """Bytes of a device beside the parameters; None where nobody knows."""
        return memory.room_beside(self.params, self.mesh, self.settings.device_memory)

    def _cache_bytes(self, dtype: str) -> float:
        """Of a slot of a cache of this dtype on one device."""
        return kv_cache.bytes_per_token(self.config, dtype) / self.mesh.shape["tensor"]

    def _prefill_bytes(self) -> float:
        dtype = self.settings.dtype
        widths = self.config.hidden_size + self.config.intermediate_size // self.mesh.shape["tensor"]
        return sizing.prefill_bytes(self._cache_bytes(dtype), widths, jnp.dtype(dtype).itemsize)
