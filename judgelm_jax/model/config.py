"""What a decoder is: the sizes and constants of a model. Imports no JAX."""

import dataclasses

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

    def __post_init__(self) -> None:
        # float32 computes with them: beyond these, a factor is a zero or an infinity there.
        if not 1e-3 <= self.factor <= 1e6:
            raise InputError(f"the factor of the rope scaling is {self.factor:g}; it must be from 0.001 to 1000000")
        if self.kind == "llama3" and not 0 < self.low_frequency_factor < self.high_frequency_factor <= 1e6:
            raise InputError(
                f"low_freq_factor is {self.low_frequency_factor:g} and high_freq_factor {self.high_frequency_factor:g}; both "
                "must be positive, and the second larger"
            )


# Far above every published model, and small enough that a table of all tensors is made at once.
LARGEST = {
    "vocab_size": 2**24,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "num_layers": 2**12,
    "num_heads": 2**14,
    "num_kv_heads": 2**14,
    "head_dim": 2**14,
    "context": 2**24,  # float32 knows every position below
}


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
        for field, largest in LARGEST.items():
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
                raise InputError(f"{field} is {value!r}; it must be a whole number from 1 to {largest}")
        if self.num_heads % self.num_kv_heads:
            raise InputError(
                f"{self.num_heads} attention heads do not divide into {self.num_kv_heads} key/value heads; "
                "num_attention_heads must be a multiple of num_key_value_heads"
            )
        if self.head_dim % 2:
            raise InputError(f"head_dim is {self.head_dim}; rotary embeddings need an even number")
        if not 1e-30 <= self.norm_epsilon <= 1:
            raise InputError(f"norm_epsilon is {self.norm_epsilon!r}; it must be a positive number of at most 1")
        if not 1 <= self.rope_base <= 1e30:
            raise InputError(f"rope_base is {self.rope_base!r}; it must be from 1 to 1e30")
