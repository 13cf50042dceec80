"""Between a Hugging Face `config.json` and the decoder that it describes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.model.config import ModelConfig, RopeScaling

# A key of `config.json` and the values under which it changes nothing that we compute. Any other value is refused by name.
_NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "attention_multiplier": (None,),
    "attn_logit_softcapping": (None,),
    "auto_map": (None,),
    "clip_qkv": (None,),
    "embedding_multiplier": (None, 1, 1.0),
    "final_logit_softcapping": (None,),
    "hidden_act": ("silu", "swish"),
    "is_decoder": (None, False, True),
    "is_encoder_decoder": (None, False),
    "layer_types": (None,),
    "logit_scale": (None, 1, 1.0),
    "logits_scaling": (None, 1, 1.0),
    "mlp_bias": (False, None),
    "num_experts": (None,),
    "num_local_experts": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
    "quantization_config": (None,),
    "residual_multiplier": (None, 1, 1.0),
    "sliding_window": (None,),
    "use_qk_norm": (None, False),
    "use_sliding_window": (None, False),
}


def from_hf(values: Mapping[str, Any]) -> ModelConfig:
    """Reads the content of a `config.json`, old form (`rope_theta`, `rope_scaling`) or new (`rope_parameters`).

    Raises:
      InputError: a field is missing or wrong, or names a feature that this model does not have.
    """
    if values.get("model_type") != "llama":
        raise InputError(f"model_type is {values.get('model_type')!r}; only 'llama' is supported")
    for key, neutral in _NEUTRAL_VALUES.items():
        if key in values and values[key] not in neutral:
            if key == "layer_types" and set(values[key]) == {"full_attention"}:
                continue
            if key == "sliding_window" and values.get("use_sliding_window") is False:  # a window that is switched off
                continue
            raise InputError(f"{key} is {values[key]!r}; this feature is not supported")
    try:
        heads = values["num_attention_heads"]
        head_dim = values.get("head_dim") or values["hidden_size"] // heads
        base, scaling = _rope(values)
        return ModelConfig(
            vocab_size=values["vocab_size"],
            hidden_size=values["hidden_size"],
            intermediate_size=values["intermediate_size"],
            num_layers=values["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=values.get("num_key_value_heads") or heads,
            head_dim=head_dim,
            context=values.get("max_position_embeddings", 2048),
            norm_epsilon=float(values.get("rms_norm_eps", 1e-6)),
            rope_base=base,
            rope_scaling=scaling,
            tied_embeddings=bool(values.get("tie_word_embeddings", False)),
            bos_id=values.get("bos_token_id", 1),
            eos_ids=_token_ids(values.get("eos_token_id", 2)),
        )
    except KeyError as error:
        raise InputError(f"the field {error.args[0]!r} is missing") from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(f"a field has a value of the wrong type ({error})") from error


def to_hf(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The `config.json` of this model, in the form that every version of `transformers` since 4.43 reads."""
    values: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "rope_scaling": None,
        "tie_word_embeddings": config.tied_embeddings,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_ids[0] if len(config.eos_ids) == 1 else list(config.eos_ids),
        "torch_dtype": dtype,
    }
    scaling = config.rope_scaling
    if scaling is not None and scaling.kind == "linear":
        values["rope_scaling"] = {"rope_type": "linear", "type": "linear", "factor": scaling.factor}
    elif scaling is not None:
        values["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    return values


def read_hf_config(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Reads `config.json`; returns the model that it describes and its raw content. Errors name the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; a checkpoint needs its config.json") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); fetch the checkpoint again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no JSON object; fetch the checkpoint again")
    try:
        return from_hf(values), values
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _rope(values: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """The base of the rotary frequencies and their scaling, from the old or the new form of the config."""
    new = values.get("rope_parameters")
    scaling = (values.get("rope_scaling") if new is None else new) or {}
    if not isinstance(scaling, dict):
        raise InputError(f"rope_scaling is {scaling!r}; it must be an object")
    base = scaling.get("rope_theta", values.get("rope_theta", 10000.0))
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return float(base), None
    if kind == "linear":
        return float(base), RopeScaling("linear", float(scaling["factor"]))
    if kind == "llama3":
        return float(base), RopeScaling(
            "llama3",
            factor=float(scaling["factor"]),
            low_frequency_factor=float(scaling["low_freq_factor"]),
            high_frequency_factor=float(scaling["high_freq_factor"]),
            original_context=int(scaling["original_max_position_embeddings"]),
        )
    raise InputError(f"rope_scaling of type {kind!r} is not supported; supported are default, linear and llama3")


def _token_ids(value: int | list[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (int(value),)
