"""The real programs of training and judging, without weights, records or devices: what `judgelm-plan` compiles."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from judgelm_jax.devices import memory
from judgelm_jax.judging.batching import Batch, Prompt
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.engine import Decoding, Engine
from judgelm_jax.judging.line_tree import LineTree
from judgelm_jax.judging.scheduler import DECODE_STEPS
from judgelm_jax.judging.trees import Tree, Trees
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import parameters
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.prompts.prompts import END
from judgelm_jax.tokens.tokenization import Tokenizer
from judgelm_jax.training.fitting import variants
from judgelm_jax.training.programs import lower_step, make_program, state_shapes
from judgelm_jax.training.step import Program
from judgelm_jax.training.throughput import step_flops
from judgelm_jax.training_config import TrainConfig
from judgelm_jax.verdicts import distributions, score_lines
from judgelm_jax.verdicts.score_lines import LineForm

_SYSTEM_TOKENS = 40  # that all prompts begin with
_PROMPTS_OF_A_DEVICE = 300  # enough for a full batch, and for every slot of a device
LINE_STEPS = 4  # forward passes behind the prompt for a score line as `8 9` and its newline


@dataclasses.dataclass(frozen=True)
class Planned:
    """A program to be compiled.

    `parts`: bytes on one device by what they are for, as their shapes say. `unknown_trips`: of loops whose end depends on data.
    Of one run on all devices: `ideal_flops`, what the mathematics needs; `tokens` that it computes; `least_bytes`, what each
    device must read at least. `shape`: its sizes, to be shown.
    """

    name: str
    lower: Callable[[], Any]
    parts: dict[str, float]
    unknown_trips: int
    ideal_flops: float
    tokens: int
    least_bytes: float
    shape: dict[str, Any]


def training(config: TrainConfig, model: ModelConfig, mesh: Mesh, targets: int, capacity: float) -> Iterator[list[Planned]]:
    """The training step of a config on full rows with `targets` targets each: each way to compute it, the fastest first."""
    program = make_program(config, model, mesh, steps=1000)
    held = memory.bytes_on_device(state_shapes(program))
    for variant in variants(program, config, capacity - held):
        yield [_step(variant, config, model, mesh, targets)]


def _step(program: Program, config: TrainConfig, model: ModelConfig, mesh: Mesh, targets: int) -> Planned:
    """One way to compute the step."""
    shapes = state_shapes(program)
    frozen = None
    if program.lora is not None:
        frozen = _placed(parameters.abstract_params(model, program.dtype), parameters.param_shardings(model, mesh))
    rows, length = config.training.batch, config.data.length
    tokens = rows * length
    micro = rows // program.accumulation // (mesh.shape["data"] * mesh.shape["fsdp"])
    kept = model.num_layers * micro * length * model.hidden_size * jnp.dtype(program.dtype).itemsize
    return Planned(
        "step",
        lambda: lower_step(program, shapes, frozen, rows, length, targets),
        {
            "parameters": memory.bytes_on_device((shapes["params"], frozen)),
            "optimizer": memory.bytes_on_device(shapes["optimizer"]),
            "activations": float(kept),  # the residual stream between layers, which the backward pass begins with
            "cache": 0.0,
        },
        1,
        step_flops(model, tokens, float(rows) * length**2, rows * targets, program.lora is not None),
        tokens,
        0.0,
        {
            "batch": rows,
            "length": length,
            "targets": targets,
            "micro_batch": micro,
            "accumulation": program.accumulation,
            "remat": program.placement.remat,
            "attention": program.placement.attention,
        },
    )


def judging(
    settings: JudgeConfig, model: ModelConfig, mesh: Mesh, prompt_tokens: int, tokenizer: Tokenizer | None = None
) -> Iterator[list[Planned]]:
    """The programs of a judge in its mode, for many prompts of one length; the first is what its time goes to. Then those of
    smaller and smaller sizes.

    Without a `tokenizer`, a token is a character of a score line, as in LLaMA's vocabulary.
    """
    tokenizer = tokenizer or cast(Tokenizer, _Characters())
    words = distributions.grid(settings.score_grid) if settings.mode == "distribution" else score_lines.SCORE_STRINGS
    form = LineForm(END, "", words, 2)
    params = _placed(parameters.abstract_params(model, settings.dtype), parameters.param_shardings(model, mesh))
    engine = Engine(params, model, mesh, settings, Trees(tokenizer, settings.mode))
    own = min(prompt_tokens, engine.prompt_budget(form))
    prompts = _prompts(_PROMPTS_OF_A_DEVICE * mesh.size, own, model.vocab_size, form)
    if settings.mode == "explain":
        for size in engine.decoding_sizes(prompts):
            yield _explaining(engine, size)
        return
    for ((_, tree, batches),) in engine.score_sizes(prompts):
        yield [_scoring(engine, tree, max(batches, key=lambda batch: len(batch.prompts_by_index)), own)]


def _scoring(engine: Engine, tree: Tree, batch: Batch, own: int) -> Planned:
    """Scores, or distributions, of a batch of prompts with `own` tokens."""
    model = engine.config
    count = len(batch.prompts_by_index)
    line_tokens = len(tree.tokens) if isinstance(tree, LineTree) else LINE_STEPS
    ideal = _prefill_flops(model, batch) + _token_flops(model, own) * count * line_tokens
    slots = batch.capacity * (batch.prompt_length + tree.slots)
    return Planned(
        engine.settings.mode,
        lambda: engine.programs.lower_score(engine.params, tree, batch),
        _parts(engine, batch, slots),
        LINE_STEPS,
        ideal,
        sum(len(prompt.ids) for _, prompt in batch.prompts_by_index),
        0.0,
        _shape(engine, batch),
    )


def _explaining(engine: Engine, size: Decoding) -> list[Planned]:
    """Decoding in all slots, and the admission of prompts into them."""
    slots, context, batches = size
    batch = max(batches, key=lambda batch: batch.row_length)
    programs, params, model, mesh = engine.programs, engine.params, engine.config, engine.mesh
    parts = _parts(engine, batch, slots * context)
    # Of one step, each device reads its part of the weights (whole along `fsdp`, which gathers them) and of the cache.
    weights = parts["parameters"] * mesh.shape["fsdp"]
    decode = Planned(
        "decode",
        lambda: programs.lower_decode(params, slots, context),
        {**parts, "activations": 0.0},
        DECODE_STEPS,
        _token_flops(model, context) * slots * DECODE_STEPS,
        slots * DECODE_STEPS,
        (weights + parts["cache"]) * DECODE_STEPS,
        {"slots": slots, "context": context, "steps": DECODE_STEPS, "attention": programs.placement.attention},
    )
    admit = Planned(
        "admit",
        lambda: programs.lower_admit(params, slots, context, batch),
        parts,
        1,
        _prefill_flops(model, batch),
        sum(len(prompt.ids) for _, prompt in batch.prompts_by_index),
        0.0,
        _shape(engine, batch),
    )
    return [decode, admit]


def _parts(engine: Engine, batch: Batch, slots: int) -> dict[str, float]:
    mesh, itemsize = engine.mesh, jnp.dtype(engine.settings.dtype).itemsize
    held = engine.settings.slots_dtype
    spread = mesh.shape["data"] * mesh.shape["fsdp"] * mesh.shape["tensor"]
    return {
        "parameters": memory.bytes_on_device(engine.params),
        "optimizer": 0.0,
        "activations": float(batch.row_length * engine.config.hidden_size * itemsize),  # the residual stream
        "cache": kv_cache.bytes_per_token(engine.config, held) * slots / spread,
    }


def _shape(engine: Engine, batch: Batch) -> dict[str, Any]:
    return {
        "device_batches": len(batch.device_batches),
        "row_length": batch.row_length,
        "prompts": batch.prompts,
        "prompt_length": batch.prompt_length,
        "attention": engine.programs.placement.attention,
    }


def _prompts(count: int, length: int, words: int, form: LineForm) -> list[Prompt]:
    rng = np.random.default_rng(0)
    system = rng.integers(3, words, min(_SYSTEM_TOKENS, length - 1))
    own = rng.integers(3, words, (count, length - len(system)))
    ids = (np.concatenate([system, rest]).astype(np.int32) for rest in own)
    return [Prompt(index, one, np.zeros(2, np.uint32), form) for index, one in enumerate(ids)]


def _prefill_flops(model: ModelConfig, batch: Batch) -> float:
    """What the mathematics needs for a cache of each prompt and the logits at its end.

    2 FLOPs a weight and token of the tree; in the last layer, keys and values only. Attention sees half of a prompt.
    """
    tensors = parameters.declared(model)
    matrices = {path: tensor.size for path, tensor in tensors.items() if tensor.of_layers and tensor.is_matrix}
    layers = sum(matrices.values())
    last = layers / model.num_layers
    keys = sum(size for path, size in matrices.items() if path[-2] in ("k_proj", "v_proj")) / model.num_layers
    lengths = [len(prompt.ids) for _, prompt in batch.prompts_by_index]
    tokens = batch.tree_tokens
    dense = 2 * ((layers - last + keys) * tokens + (last - keys + _head_size(model)) * len(lengths))
    squares = sum(length**2 for length in lengths)
    return dense + 2 * (model.num_layers - 1) * model.num_heads * model.head_dim * squares


def _token_flops(model: ModelConfig, seen: int) -> float:
    """Of one token behind `seen` others, with its logits."""
    layers = sum(tensor.size for tensor in parameters.declared(model).values() if tensor.of_layers and tensor.is_matrix)
    return 2 * (layers + _head_size(model)) + 4 * model.num_layers * model.num_heads * model.head_dim * seen


def _head_size(model: ModelConfig) -> int:
    return model.vocab_size * model.hidden_size


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda x, own: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own), shapes, shardings)


class _Characters:
    """A tokenizer whose tokens are characters."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))
