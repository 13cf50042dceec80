"""What a decoder is: the sizes and constants of a model. Imports no JAX."""

import dataclasses
from typing import NamedTuple

from judgelm_jax.errors import InputError

# The ways to compute attention (`model.attention` says where each runs).
ATTENTION_BACKENDS = ("reference", "xla", "blocked", "cudnn", "pallas", "splash")


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for contexts longer than those of pre-training, `original_context`.

    | kind | what it does | source |
    | --- | --- | --- |
    | `linear` | divides all frequencies by `factor` | Chen et al., arXiv 2306.15595 |
    | `llama3` | divides those below `low_frequency_factor` turns, keeps those above `high_frequency_factor` | Llama 3.1 |
    | `yarn` | the same between `beta_slow` and `beta_fast` turns, by dimension | Peng et al., arXiv 2309.00071 |
    | `longrope` | divides each by its own of `short_factors`, or `long_factors` | Ding et al., arXiv 2402.13753 |

    The context of the model decides between short and long factors, not the length of a row: what a record gets must not depend
    on its neighbours. `attention_factor` is what cosine and sine are multiplied by (`yarn`, `longrope`). `truncate`: the two
    bounds of `yarn` are whole dimensions.
    """

    kind: str
    factor: float
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_context: int = 8192
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        # float32 computes with them: beyond these, a factor is a zero or an infinity there.
        for factor in (self.factor, self.attention_factor, *self.short_factors, *self.long_factors):
            if not 1e-3 <= factor <= 1e6:
                raise InputError(f"a factor of the rope scaling is {factor:g}; it must be from 0.001 to 1000000")
        if self.kind == "yarn" and not 0 < self.beta_slow < self.beta_fast <= 1e6:
            raise InputError(
                f"beta_slow is {self.beta_slow:g} and beta_fast {self.beta_fast:g}; both must be positive, the second larger"
            )
        if self.kind == "llama3" and not 0 < self.low_frequency_factor < self.high_frequency_factor <= 1e6:
            raise InputError(
                f"low_freq_factor is {self.low_frequency_factor:g} and high_freq_factor {self.high_frequency_factor:g}; both "
                "must be positive, and the second larger"
            )


class Limits(NamedTuple):
    """What keeps attention from being the plain softmax of all scores.

    `window`: a token sees this many, itself the last (Beltagy et al., arXiv 2004.05150); None: all before it. `softcap`: a
    score s counts as softcap · tanh(s / softcap) (Gemma 2, arXiv 2408.00118); None: as it is.
    """

    window: int | None = None
    softcap: float | None = None


NO_LIMITS = Limits()


@dataclasses.dataclass(frozen=True)
class LayerKind:
    """What may differ from layer to layer: the window of attention, and a rotary base of its own, which is never scaled (None:
    base and scaling of the model)."""

    window: int | None = None
    rope_base: float | None = None

    def __post_init__(self) -> None:
        if self.window is not None and not 1 <= self.window <= LARGEST["context"]:
            raise InputError(f"sliding_window is {self.window}; it must be from 1 to {LARGEST['context']}")
        if self.rope_base is not None and not 1 <= self.rope_base <= 1e30:
            raise InputError(f"rope_base of a kind of layers is {self.rope_base!r}; it must be from 1 to 1e30")


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
    """A decoder. Sizes are counts; `head_dim` is the width of one attention head.

    What families differ in has the value of a LLaMA where it is left out: `qkv_bias` (of the projections of queries, keys and
    values), `qk_norm` (a norm of each head of queries and keys), `activation` of the MLP (`silu` or `gelu_tanh`), `norm_offset`
    (added to the weights of norms), `post_norms` (of what attention and MLP give), `embedding_scale`, `query_scale` (what
    scores are multiplied by; None: 1/√head_dim), soft caps of attention and logits. Layer i is of the kind
    `pattern[i % len(pattern)]`. `int8`: matrices are whole numbers with a scale for each row, to judge with, not to train.
    """

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
    family: str = "llama"
    qkv_bias: bool = False
    qk_norm: bool = False
    activation: str = "silu"
    norm_offset: float = 0.0
    post_norms: bool = False
    embedding_scale: float = 1.0
    query_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    pattern: tuple[LayerKind, ...] = (LayerKind(),)
    int8: bool = False

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
        for field in ("query_scale", "attention_softcap", "logit_softcap"):
            value = getattr(self, field)
            if value is not None and not 1e-6 <= value <= 1e6:
                raise InputError(f"{field} is {value!r}; it must be from 1e-6 to 1e6")
        scaling = self.rope_scaling
        if scaling is not None and scaling.kind == "yarn" and self.rope_base <= 1.0:
            raise InputError(f"rope_base is {self.rope_base:g}; the scaling yarn needs one above 1")
        if scaling is not None and scaling.kind == "longrope":
            for name in ("short_factors", "long_factors"):
                count, frequencies = len(getattr(scaling, name)), self.head_dim // 2
                if count != frequencies:
                    raise InputError(f"the rope scaling has {count} {name}; heads of this model have {frequencies} frequencies")

    def limits(self) -> Limits:
        """What all layers together ask of attention: the smallest window within the context, the soft cap."""
        windows = [kind.window for kind in self.pattern if kind.window is not None and kind.window < self.context]
        return Limits(min(windows, default=None), self.attention_softcap)
