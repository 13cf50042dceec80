"""Between a Hugging Face `config.json` and the decoder that it describes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.json_object import read_json_object
from judgelm_jax.model.config import LARGEST, ModelConfig
from judgelm_jax.model.config_keys import SAME_AS, check_keys, shown
from judgelm_jax.model.config_rope import CONDENSED, context_of, number, rope_of, whole
from judgelm_jax.notices import say_once


def from_hf(values: Mapping[str, Any]) -> ModelConfig:
    """Reads the content of a `config.json`, old form (`rope_theta`, `rope_scaling`) or new (`rope_parameters`).

    Raises:
      InputError: a field is missing or wrong, or names a feature that this model does not have.
    """
    if values.get("model_type") != "llama":
        raise InputError(f"model_type is {shown(values.get('model_type'))}; only 'llama' is supported")
    unknown = check_keys(values)
    try:
        vocab_size, hidden_size = _size(values, "vocab_size"), _size(values, "hidden_size")
        heads = _size(values, "num_attention_heads", "num_heads")
        kv_heads = heads if values.get("num_key_value_heads") is None else _size(values, "num_key_value_heads", "num_kv_heads")
        base, scaling = rope_of(values)
        context, _ = context_of(values, scaling)
        config = ModelConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=_size(values, "intermediate_size"),
            num_layers=_size(values, "num_hidden_layers", "num_layers"),
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=_head_dim(values, hidden_size, heads),
            context=context,
            norm_epsilon=1e-6 if values.get("rms_norm_eps") is None else number(values, "rms_norm_eps"),
            rope_base=base,
            rope_scaling=scaling,
            tied_embeddings=_switch(values, "tie_word_embeddings"),
            bos_id=_beginning(values),
            eos_ids=token_ids(values.get("eos_token_id", 2), vocab_size),
        )
    except KeyError as error:
        raise InputError(f"the field {error.args[0]!r} is missing") from error
    _check_other_names(values, config)
    if values.get("auto_map"):
        say_once("config.json names code of its own (auto_map), which is never run: the model is read as a plain LLaMA")
    if unknown:
        say_once(f"config.json: not known, taken as without effect: {', '.join(shown(key)[1:-1] for key in unknown[:20])}")
    return config


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
        values["max_sequence_length"] = config.context  # the whole one; else the factor would count again
    elif scaling is not None:
        values["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    return values


def guessed_context(values: Mapping[str, Any]) -> str | None:
    """A line about the context of a readable config, where it is not stated but computed or assumed."""
    return context_of(values, rope_of(values)[1])[1]


def with_context(values: dict[str, Any], context: int | None) -> dict[str, Any]:
    """The content of a `config.json` that states another context; None: as it is."""
    return values if context is None else {**values, "max_sequence_length": context}


def read_hf_config(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Reads `config.json`; returns the model that it describes and its content. Errors name the file.

    LongChat's condensed positions are in the content in the form that other programs know, too.
    """
    try:
        values = read_json_object(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file; a checkpoint needs its config.json") from error
    try:
        config = from_hf(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if CONDENSED in values and config.rope_scaling is not None:
        values["rope_scaling"] = {"rope_type": "linear", "type": "linear", "factor": config.rope_scaling.factor}
    return config, values


def token_ids(value: Any, vocab_size: int) -> tuple[int, ...]:
    """The ends of sequence that `eos_token_id` states: one id, a list, or null. Each once, in their order.

    Raises:
      InputError: it is something else, or the model has no such token.
    """
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    for i in ids:
        if type(i) is not int:
            raise InputError(f"eos_token_id is {shown(value)}; it must be a token id or a list of them")
        if not 0 <= i < vocab_size:
            raise InputError(f"eos_token_id is {shown(value)}; the model has the tokens 0 to {vocab_size - 1}")
    return tuple(dict.fromkeys(ids))


def _size(values: Mapping[str, Any], key: str, field: str = "") -> int:
    size, largest = whole(values, key), LARGEST[field or key]
    if size > largest:
        raise InputError(f"{key} is {shown(size)}; it must be at most {largest}")
    return size


def _head_dim(values: Mapping[str, Any], hidden_size: int, heads: int) -> int:
    if values.get("head_dim") is not None:
        return _size(values, "head_dim")
    if hidden_size % heads:
        raise InputError(
            f"hidden_size {hidden_size} does not divide into num_attention_heads {heads}, and no head_dim is given"
        )
    return hidden_size // heads


def _switch(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key)
    if value not in (None, False, True):
        raise InputError(f"{key} is {shown(value)}; it must be true or false")
    return bool(value)


def _beginning(values: Mapping[str, Any]) -> int | None:
    value = values.get("bos_token_id", 1)
    if value is not None and type(value) is not int:
        raise InputError(f"bos_token_id is {shown(value)}; it must be a token id")
    return None if value is None or value < 0 else value


def _check_other_names(values: Mapping[str, Any], config: ModelConfig) -> None:
    """Refuses a key of other code that says otherwise than the one that is read."""
    read = {
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "head_dim": config.head_dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "hidden_size": config.hidden_size,
    }
    for other, name in SAME_AS.items():
        if values.get(other) is not None and values[other] != read[name]:
            raise InputError(f"{other} is {shown(values[other])} and {name} {read[name]:g}; keep the right one as {name}")
