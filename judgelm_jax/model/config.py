"""What a decoder is: the sizes and constants of a model. Imports no JAX."""

import dataclasses
import math

from judgelm_jax.errors import InputError

# The ways to compute attention (`model.attention` says where each runs).
ATTENTION_BACKENDS = ("reference", "xla", "blocked", "cudnn", "pallas", "splash")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those of pre-training.

    `kind` is `linear` (positions divided by `factor`; Chen et al., arXiv 2306.15595) or `llama3` (low frequencies divided by
    `factor`, high ones kept, a smooth passage between; the release notes of Llama 3.1).
    """

    kind: str
    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A LLaMA-family decoder. Sizes are counts; `head_dim` is the width of one attention head."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context: int
    norm_epsilon: float
    rope_base: float
    rope_scaling: RopeScaling | None
    tied_embeddings: bool
    bos_id: int | None
    eos_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        for field in (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
            "context",
        ):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{field} is {value!r}; it must be a whole number of at least 1")
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"{self.num_heads} attention heads do not divide into {self.num_kv_heads} key/value heads; "
                "num_attention_heads must be a multiple of num_key_value_heads"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim is {self.head_dim}; rotary embeddings need an even number")
        for field in ("norm_epsilon", "rope_base"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{field} is {value!r}; it must be a positive number")
