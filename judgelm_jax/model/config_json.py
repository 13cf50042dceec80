"""Between a Hugging Face `config.json` and the decoder that it describes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.model.config import LARGEST, LayerKind, ModelConfig
from judgelm_jax.model.config_keys import SAME_AS, check_keys, shown
from judgelm_jax.model.config_rope import (
    CONDENSED,
    FULL,
    SLIDING,
    context_of,
    local_base_of,
    number,
    rope_of,
    scaling_to_hf,
    whole,
)
from judgelm_jax.model.families import FAMILIES, NOT_SUPPORTED, Family
from judgelm_jax.model.layer_pattern import shortest_pattern
from judgelm_jax.notices import say_once
from judgelm_jax.records.json_object import read_json_object


def from_hf(values: Mapping[str, Any]) -> ModelConfig:
    """Reads the content of a `config.json`, old form (`rope_theta`, `rope_scaling`) or new (`rope_parameters`).

    Raises:
      InputError: a field is missing or wrong, or names a feature that this model does not have.
    """
    name = values.get("model_type")
    family = FAMILIES.get(name) if isinstance(name, str) else None
    if family is None:
        reason = NOT_SUPPORTED.get(name) if isinstance(name, str) else None
        known = ", ".join(FAMILIES)
        raise InputError(
            f"model_type is {shown(name)}, which is not supported{f' ({reason})' if reason else ''}; known are {known}"
        )
    unknown = check_keys(values, str(name), family.reads)
    for key in ("hidden_act", "hidden_activation"):
        if key in family.reads and values.get(key) not in (None, family.activation):
            raise InputError(f"{key} is {shown(values[key])}; with model_type {name!r}, {family.activation} is supported")
    values = {**family.defaults, **values}
    try:
        vocab_size, hidden_size = _size(values, "vocab_size"), _size(values, "hidden_size")
        heads = _size(values, "num_attention_heads", "num_heads")
        kv_heads = heads if values.get("num_key_value_heads") is None else _size(values, "num_key_value_heads", "num_kv_heads")
        layers = _size(values, "num_hidden_layers", "num_layers")
        base, scaling = rope_of(values, family.rope_base)
        head_dim = _head_dim(values, hidden_size, heads)
        context, _ = context_of(values, scaling)
        config = ModelConfig(
            **family.fields,
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=_size(values, "intermediate_size"),
            num_layers=layers,
            num_heads=heads,
            num_kv_heads=kv_heads,
            head_dim=head_dim,
            context=context,
            norm_epsilon=1e-6 if values.get("rms_norm_eps") is None else number(values, "rms_norm_eps"),
            rope_base=base,
            rope_scaling=scaling,
            tied_embeddings=_switch(values, "tie_word_embeddings"),
            bos_id=_beginning(values),
            eos_ids=token_ids(values.get("eos_token_id", 2), vocab_size),
            family=str(name),
            embedding_scale=hidden_size**0.5 if family.fields.get("norm_offset") else 1.0,
            query_scale=_query_scale(values, head_dim),
            attention_softcap=_positive(values, "attn_logit_softcapping"),
            logit_softcap=_positive(values, "final_logit_softcapping"),
            pattern=_pattern(values, family, layers),
        )
    except KeyError as error:
        raise InputError(f"the field {error.args[0]!r} is missing") from error
    _check_other_names(values, config)
    if values.get("sliding_window_size") not in (None, values.get("sliding_window")):
        raise InputError("sliding_window_size and sliding_window disagree; keep the right one as sliding_window")
    if values.get("auto_map"):
        say_once(f"config.json names code of its own (auto_map), which is never run: the model is read as a plain {name}")
    if unknown:
        say_once(f"config.json: not known, taken as without effect: {', '.join(shown(key)[1:-1] for key in unknown[:20])}")
    return config


def to_hf(config: ModelConfig, dtype: str) -> dict[str, Any]:
    """The `config.json` of this model, in the form that every version of `transformers` that has its family reads."""
    family = FAMILIES[config.family]
    values: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        family.activation_key: family.activation,
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_base,
        "rope_scaling": None,
        "tie_word_embeddings": config.tied_embeddings,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_ids[0] if len(config.eos_ids) == 1 else list(config.eos_ids),
        "torch_dtype": dtype,
    }
    if not config.qkv_bias:
        values |= {"attention_bias": False, "mlp_bias": False}
    if config.rope_scaling is not None:
        values["rope_scaling"] = scaling_to_hf(config.rope_scaling)
        if config.rope_scaling.kind in ("linear", "yarn"):
            values["max_sequence_length"] = config.context  # the whole one; else the factor would count again
    return values | _limits_to_hf(config, family)


def _limits_to_hf(config: ModelConfig, family: Family) -> dict[str, Any]:
    """The keys of windows, soft caps and the scale of queries, where the family has them."""
    values: dict[str, Any] = {}
    if family.slides is not None:
        kinds = [config.pattern[layer % len(config.pattern)] for layer in range(config.num_layers)]
        windows = {kind.window for kind in kinds if kind.window is not None}
        values["sliding_window"] = windows.pop() if windows else None
        if family.local_base is not None:
            local = {kind.rope_base for kind in kinds if kind.rope_base is not None}
            values["rope_local_base_freq"] = local.pop() if local else family.local_base
            values["layer_types"] = [FULL if kind.rope_base is None else SLIDING for kind in kinds]
        elif config.family != "mistral":  # all of its layers have the window, and it has no such key
            values["layer_types"] = [FULL if kind.window is None else SLIDING for kind in kinds]
        if "use_sliding_window" in family.reads:
            values["use_sliding_window"] = values["sliding_window"] is not None
    if "query_pre_attn_scalar" in family.reads:
        scalar = config.head_dim if config.query_scale is None else config.query_scale**-2
        values["query_pre_attn_scalar"] = round(scalar) if abs(scalar - round(scalar)) < 1e-6 else scalar
        values["attn_logit_softcapping"] = config.attention_softcap
        values["final_logit_softcapping"] = config.logit_softcap
    return values


def guessed_context(values: Mapping[str, Any]) -> str | None:
    """A line about the context of a readable config, where it is not stated but computed or assumed."""
    values = {**FAMILIES[values["model_type"]].defaults, **values}
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


def _pattern(values: Mapping[str, Any], family: Family, layers: int) -> tuple[LayerKind, ...]:
    """The kinds of the layers: those of `layer_types`, or as the family has them."""
    if family.slides is None:
        return (LayerKind(),)
    for key, least in (("max_window_layers", 0), ("sliding_window_pattern", 1)):
        if key in family.reads and (type(values[key]) is not int or values[key] < least):
            raise InputError(f"{key} is {shown(values[key])}; it must be a whole number of at least {least}")
    types = values.get("layer_types") if "layer_types" in family.reads else None
    if types is None:
        slides = [family.slides(values, layer) for layer in range(layers)]
    elif isinstance(types, list) and len(types) == layers and all(kind in (FULL, SLIDING) for kind in types):
        slides = [kind == SLIDING for kind in types]
    else:
        raise InputError(f"layer_types is {shown(types)}; it must name {FULL} or {SLIDING} for each of {layers} layers")
    window = None if values.get("sliding_window") is None else _size(values, "sliding_window", "context")
    if "use_sliding_window" in family.reads and not _switch(values, "use_sliding_window"):
        window = None
    sliding = LayerKind(window, None if family.local_base is None else local_base_of(values, family.local_base))
    return shortest_pattern([sliding if slide else LayerKind() for slide in slides])


def _query_scale(values: Mapping[str, Any], head_dim: int) -> float | None:
    scalar = _positive(values, "query_pre_attn_scalar")
    return None if scalar in (None, head_dim) else scalar**-0.5


def _positive(values: Mapping[str, Any], key: str) -> float | None:
    if values.get(key) is None:
        return None
    value = number(values, key)
    if value <= 0:
        raise InputError(f"{key} is {shown(values[key])}; it must be positive")
    return value


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
