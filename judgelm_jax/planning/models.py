"""The models that are planned: the published judges (Zhu et al., arXiv 2310.17631) by name, or a checkpoint."""

import dataclasses

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.errors import InputError
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.tokens.tokenization import Tokenizer, load_tokenizer
from judgelm_jax.training_config import ModelShape, TrainConfig

SHAPES = {
    "7b": ModelShape(),
    "13b": ModelShape(hidden_size=5120, intermediate_size=13824, num_layers=40, num_heads=40, num_kv_heads=40),
    "33b": ModelShape(hidden_size=6656, intermediate_size=17920, num_layers=60, num_heads=52, num_kv_heads=52),
}
_WORDS = 32000


def model_of(shape: ModelShape) -> ModelConfig:
    """A LLaMA of this shape: its vocabulary, and the ε of its norms."""
    return dataclasses.replace(shape.with_vocabulary(_WORDS), norm_epsilon=1e-6)


def of_checkpoint(name: str) -> tuple[ModelConfig, Tokenizer, TrainConfig]:
    """The model of a checkpoint, its tokenizer, and the published recipe for it. Its weights are not read."""
    try:
        checkpoint = open_checkpoint(name)
    except InputError as error:
        raise InputError(f"--model={name} is none of {', '.join(SHAPES)}, and no checkpoint: {error}") from error
    shape = ModelShape(**{field.name: getattr(checkpoint.config, field.name) for field in dataclasses.fields(ModelShape)})
    config = TrainConfig(model=shape)
    config.data.length = min(config.data.length, shape.context)
    return checkpoint.config, load_tokenizer(checkpoint.tokenizer_folder), config
