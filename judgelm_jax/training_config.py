"""The dataclasses that describe a training run: what a file of `configs/` returns and `--config.SECTION.FIELD=` overrides.

They are mutable because `ml_collections.config_flags` sets their fields one by one; `check` is called once all are set.
The defaults are the published recipe of JudgeLM-7B (Zhu et al., arXiv 2310.17631).
"""

import dataclasses
import math
import types
import typing

from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.errors import InputError
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.model.config import ModelConfig

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
REMATS = ("auto", "none", "dots", "full")
BEST_BY = ("loss", "agreement", "last")

_BELOW_ONE = 1 - 1e-9


@dataclasses.dataclass
class ModelShape:
    """The shape of a model with random weights, whose vocabulary is the tokenizer's; a checkpoint brings its own."""

    hidden_size: int = 4096  # width of the residual stream
    intermediate_size: int = 11008  # width inside an MLP
    num_layers: int = 32  # decoder layers
    num_heads: int = 32  # query heads; they divide hidden_size
    num_kv_heads: int = 32  # key and value heads; they divide num_heads
    context: int = 2048  # the most tokens of a prompt and its response
    tied_embeddings: bool = False  # one matrix for the embedding and the output

    def with_vocabulary(self, vocab_size: int, bos_id: int | None = 1, eos_ids: tuple[int, ...] = (2,)) -> ModelConfig:
        """A LLaMA of this shape; by default with the ends of LLaMA's vocabulary."""
        return ModelConfig(
            vocab_size=vocab_size,
            head_dim=self.hidden_size // self.num_heads,
            norm_epsilon=1e-5,
            rope_base=10000.0,
            rope_scaling=None,
            bos_id=bos_id,
            eos_ids=eos_ids,
            **dataclasses.asdict(self),
        )


@dataclasses.dataclass
class DataConfig:
    """What is made of a training file. Probabilities are per record and epoch."""

    swap_augmentation: float = 0.5  # probability of exchanging the two answers
    reference_support: bool = True  # use the teacher's judgment with reference, where a record has one
    reference_drop: float = 0.5  # with reference support: probability of leaving the reference out after all
    ref_drop_ratio: float | None = None  # the published name, which was the probability of *adding* the reference
    length: int = 2048  # tokens of a row; examples are shortened or left out to fit
    packing: bool = False  # several short examples in one row, each a segment
    on_overflow: str = "truncate"  # too long: shorten the answers; or `skip` the record; or `error`


@dataclasses.dataclass
class RecipeConfig:
    """How parameters change. A batch is the unit of a step, over all devices and processes."""

    epochs: int = 3  # passes over the training file
    steps: int = 0  # end the run (and the schedule) after this many steps; 0: after all epochs
    batch: int = 128  # rows of one step
    micro_batch: int = 0  # rows that a data-parallel device computes at once, the rest accumulates; 0: what fits
    learning_rate: float = 2e-5  # the highest, reached when the warm-up ends
    warmup: float = 0.03  # share of the steps in which the learning rate rises from 0; then it falls as a cosine, to 0
    weight_decay: float = 0.0  # AdamW's, on matrices only
    beta1: float = 0.9  # AdamW's decay of the mean of gradients
    beta2: float = 0.999  # AdamW's decay of the mean of their squares
    epsilon: float = 1e-8  # AdamW's, added to the root of that mean
    clip_norm: float = 1.0  # longer gradients are shortened to this norm
    seed: int = 0  # of all that is drawn: order, augmentation, random weights, the held-out sample
    skipped_in_a_row: int = 5  # steps without a finite gradient after which the run ends


@dataclasses.dataclass
class ComputationConfig:
    """What may round otherwise but means the same."""

    dtype: str = "bfloat16"  # of the computation; parameters and moments are float32
    mesh: str = "data:1,fsdp:-1,tensor:1"  # devices along each axis; -1: those that remain
    attention: str = "auto"  # the kernel; `auto`: the fastest that the device and packing allow
    remat: str = "auto"  # computed again, not kept: `none`, all but matrix products (`dots`), `full`; `auto`: `dots` if it fits
    loss_chunk: int = 512  # target tokens of a device whose logits exist at once
    peak_tflops: float = 0.0  # of one device in this dtype, for the utilization; 0: by the device's name, where known


@dataclasses.dataclass
class LoraConfig:
    """Low-rank adapters (Hu et al., arXiv 2106.09685) instead of all parameters; rank 0: none."""

    rank: int = 0  # of the adapters; 0: none
    alpha: float = 16.0  # adapters are scaled by alpha / rank
    targets: tuple[str, ...] = ("q_proj", "v_proj")  # the projections that get adapters


@dataclasses.dataclass
class EvaluationConfig:
    """Loss and judge metrics on the held-out file, inside the loop."""

    every: int = 0  # steps from one evaluation to the next; 0: one at the end only
    records: int = 256  # how many of the held-out file are measured, spread over its questions


@dataclasses.dataclass
class CheckpointConfig:
    """What is kept of the run while it goes on."""

    every: int = 500  # steps from one save to the next
    keep: int = 2  # how many of the last saved steps stay
    best_by: str = "loss"  # the step that is kept besides and becomes the model: by held-out `loss` or `agreement`; or `last`
    export_dtype: str = "bfloat16"  # of the weights that the run leaves; adapters are merged in that of their base


@dataclasses.dataclass
class TrainConfig:
    """One training run."""

    model: ModelShape = dataclasses.field(default_factory=ModelShape)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    training: RecipeConfig = dataclasses.field(default_factory=RecipeConfig)
    computation: ComputationConfig = dataclasses.field(default_factory=ComputationConfig)
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    checkpoints: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)


def check(config: TrainConfig, own_shape: bool = True) -> None:
    """Refuses values that mean nothing, and converts the published `ref_drop_ratio` into `reference_drop`.

    Args:
      own_shape: `config.model` is the shape of the model; else a checkpoint will bring one, and this one says nothing.

    Raises:
      InputError: names the field as the flag does.
    """
    _check_types(config)
    if config.data.ref_drop_ratio is not None:
        _check_range("data.ref_drop_ratio", config.data.ref_drop_ratio, 0, 1)
        config.data.reference_drop, config.data.ref_drop_ratio = 1 - config.data.ref_drop_ratio, None
    recipe, computation = config.training, config.computation
    context, width = (config.model.context, config.model.hidden_size) if own_shape else (math.inf, math.inf)
    sizes = ("hidden_size", "intermediate_size", "num_layers", "num_heads", "num_kv_heads", "context")
    for field in sizes if own_shape else ():
        _check_range(f"model.{field}", getattr(config.model, field), 1, 2**24)
    for name, value, low, high in (
        ("data.swap_augmentation", config.data.swap_augmentation, 0, 1),
        ("data.reference_drop", config.data.reference_drop, 0, 1),
        ("data.length", config.data.length, 16, context),
        ("training.epochs", recipe.epochs, 1, math.inf),
        ("training.steps", recipe.steps, 0, math.inf),
        ("training.batch", recipe.batch, 1, math.inf),
        ("training.micro_batch", recipe.micro_batch, 0, math.inf),
        ("training.learning_rate", recipe.learning_rate, 0, 10),
        ("training.warmup", recipe.warmup, 0, 1),
        ("training.weight_decay", recipe.weight_decay, 0, 10),
        ("training.beta1", recipe.beta1, 0, _BELOW_ONE),
        ("training.beta2", recipe.beta2, 0, _BELOW_ONE),
        ("training.epsilon", recipe.epsilon, 1e-30, 1),
        ("training.clip_norm", recipe.clip_norm, 1e-12, math.inf),
        ("training.seed", recipe.seed, 0, 2**31 - 1),
        ("training.skipped_in_a_row", recipe.skipped_in_a_row, 1, math.inf),
        ("computation.loss_chunk", computation.loss_chunk, 1, math.inf),
        ("computation.peak_tflops", computation.peak_tflops, 0, math.inf),
        ("lora.rank", config.lora.rank, 0, width),
        ("lora.alpha", config.lora.alpha, 1e-6, math.inf),
        ("evaluation.every", config.evaluation.every, 0, math.inf),
        ("evaluation.records", config.evaluation.records, 1, math.inf),
        ("checkpoints.every", config.checkpoints.every, 1, math.inf),
        ("checkpoints.keep", config.checkpoints.keep, 1, math.inf),
    ):
        _check_range(name, value, low, high)
    for name, choice, choices in (
        ("data.on_overflow", config.data.on_overflow, JudgeConfig.OVERFLOWS),
        ("computation.dtype", computation.dtype, JudgeConfig.DTYPES),
        ("computation.attention", computation.attention, JudgeConfig.ATTENTIONS),
        ("computation.remat", computation.remat, REMATS),
        ("checkpoints.best_by", config.checkpoints.best_by, BEST_BY),
        ("checkpoints.export_dtype", config.checkpoints.export_dtype, JudgeConfig.DTYPES),
    ):
        if choice not in choices:
            raise InputError(f"--config.{name}={choice}: must be one of {', '.join(choices)}")
    MeshConfig.parse(computation.mesh)
    # `--config.lora.targets=q_proj,v_proj` arrives as one text: the library splits only what is written as Python.
    config.lora.targets = tuple(name.strip() for text in config.lora.targets for name in str(text).split(","))
    unknown = set(config.lora.targets) - set(LORA_TARGETS)
    if unknown or not config.lora.targets:
        raise InputError(f"--config.lora.targets={config.lora.targets}: must be of {', '.join(LORA_TARGETS)}")


def _check_types(config: TrainConfig) -> None:
    """Refuses fields of another type than they are declared with: a file may hold anything."""
    for section, declared in typing.get_type_hints(TrainConfig).items():
        values = getattr(config, section)
        if not isinstance(values, declared):
            raise InputError(f"--config.{section}: is a {type(values).__name__}; it must be a {declared.__name__}")
        for field, kind in typing.get_type_hints(declared).items():
            value = getattr(values, field)
            if kind is float and type(value) is int:
                setattr(values, field, float(value))
                continue
            origin = typing.get_origin(kind)
            plain = kind if origin in (None, types.UnionType) else origin
            if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
                name = getattr(kind, "__name__", str(kind))
                raise InputError(f"--config.{section}.{field}={value!r}: is a {type(value).__name__}; it must be a {name}")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(f"--config.{name}={value}: must be from {low} to {high}")
