"""What a family of models is: a row of constants. A new one is one more row. Imports no JAX."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Family:
    """A `model_type` of Hugging Face.

    `architecture`: the class that generates with it. `fields`: of `ModelConfig`, that all its models share. `activation_key`:
    what names the activation, and `activation` the only value of it. `reads`: the keys of a `config.json`, beside those of a
    LLaMA, that say something. `defaults`: what it means that a key is missing, as in `transformers`. `rope_base`: the same of
    the rotary base, which has several names. `slides`: whether a layer has the window where no `layer_types` say so.
    `local_base`: the rotary base of layers with a window where it is not given; None: they have none of their own.
    """

    architecture: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    activation_key: str = "hidden_act"
    activation: str = "silu"
    reads: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rope_base: float = 1e4
    slides: Callable[[Mapping[str, Any], int], bool] | None = None
    local_base: float | None = None


_WINDOWS = frozenset(("sliding_window", "layer_types"))
_QWEN_READS = _WINDOWS | {"use_sliding_window", "max_window_layers"}
_QWEN = {
    "num_key_value_heads": 32, "max_position_embeddings": 32768, "use_sliding_window": False, "sliding_window": 4096,
    "max_window_layers": 28, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
_GEMMA = {"norm_offset": 1.0, "post_norms": True, "activation": "gelu_tanh"}
_GEMMA_READS = _WINDOWS | {
    "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", "hidden_act", "hidden_activation",
    "rope_local_base_freq", "sliding_window_pattern", "sliding_window_size",
}  # fmt: skip
_GEMMA_DEFAULTS = {
    "num_key_value_heads": 4, "head_dim": 256, "tie_word_embeddings": True, "sliding_window": 4096, "bos_token_id": 2,
    "eos_token_id": 1, "query_pre_attn_scalar": 256,
}  # fmt: skip


def _from_a_layer_on(values: Mapping[str, Any], layer: int) -> bool:
    return layer >= values["max_window_layers"]


def _all_but_the_last_of_a_group(values: Mapping[str, Any], layer: int) -> bool:
    return (layer + 1) % values["sliding_window_pattern"] != 0


FAMILIES = {
    "llama": Family("LlamaForCausalLM"),
    "mistral": Family(
        "MistralForCausalLM",
        reads=frozenset(("sliding_window",)),
        defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
        slides=lambda values, layer: True,
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM", {"qkv_bias": True}, reads=_QWEN_READS, defaults=_QWEN, slides=_from_a_layer_on,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM", {"qk_norm": True}, reads=_QWEN_READS, defaults=_QWEN | {"head_dim": 128}, slides=_from_a_layer_on,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        _GEMMA,
        "hidden_activation",
        "gelu_pytorch_tanh",
        _GEMMA_READS - {"rope_local_base_freq", "sliding_window_pattern"},
        _GEMMA_DEFAULTS
        | {"max_position_embeddings": 8192, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        slides=lambda values, layer: layer % 2 == 0,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        _GEMMA | {"qk_norm": True},
        "hidden_activation",
        "gelu_pytorch_tanh",
        _GEMMA_READS,
        _GEMMA_DEFAULTS
        | {"max_position_embeddings": 131072, "sliding_window_pattern": 6},
        rope_base=1e6,
        slides=_all_but_the_last_of_a_group,
        local_base=1e4,
    ),
}  # fmt: skip

# What is near to a family, and why it is none.
NOT_SUPPORTED = {
    "gemma": "the first Gemma has no row yet",
    "gemma3": "it is a model of texts and images; take one of texts (gemma3_text)",
    "mixtral": "it has experts",
    "qwen2_moe": "it has experts",
    "qwen3_moe": "it has experts",
    "phi3": "its projections are fused",
}
