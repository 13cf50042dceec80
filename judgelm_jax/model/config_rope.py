"""The rotary positions and the context that a `config.json` states, in its old form, its new one, and LongChat's."""

import math
from collections.abc import Mapping
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.model.config import RopeScaling
from judgelm_jax.model.config_keys import shown

CONDENSED = "rope_condense_ratio"

_DEFAULT_CONTEXT = 2048  # as in `transformers`
_NAMES = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "finetuned"}
_SCALED = _NAMES | {"factor", "original_max_position_embeddings"}
_YARN = {"attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"}
_KEYS_OF = {
    "default": _NAMES,
    "linear": _SCALED,
    "llama3": _SCALED | {"low_freq_factor", "high_freq_factor"},
    "yarn": _SCALED | _YARN,
    "longrope": _SCALED | {"attention_factor", "short_factor", "long_factor"},
}
_NOT_SUPPORTED = {
    "dynamic": ", for with it the length of a batch decides what tokens mean, and a verdict would depend on its neighbours",
}
# The nested form of `rope_parameters`, where layers of two kinds differ.
FULL, SLIDING = "full_attention", "sliding_attention"


def rope_of(values: Mapping[str, Any], default: float = 10000.0) -> tuple[float, RopeScaling | None]:
    """The base of the rotary frequencies and their scaling; where layers differ, those of layers without a window.

    Old form: `rope_theta` and `rope_scaling`; new form: `rope_parameters`. A file may have both where they say the same.
    `rope_condense_ratio` (LongChat) divides positions, which is linear scaling.

    Raises:
      InputError: a value is wrong, a kind of scaling is not supported, or two keys disagree; names them.
    """
    old, new = _object(values, "rope_scaling"), _parameters(values, FULL)
    bases = {
        name: number(stated, "rope_theta", name)
        for name, stated in (("rope_theta", values), ("rope_scaling.rope_theta", old), ("rope_parameters.rope_theta", new))
        if stated is not None and stated.get("rope_theta") is not None
    }
    _agree(bases)
    scalings: dict[str, RopeScaling | None] = {}
    if old is not None:
        scalings["rope_scaling"] = _scaling(old, "rope_scaling", values)
    if new is not None:
        scalings["rope_parameters"] = _scaling(new, "rope_parameters", values)
    ratio = values.get(CONDENSED)
    if ratio is not None:
        factor = number(values, CONDENSED)
        scalings[CONDENSED] = None if factor == 1 else RopeScaling("linear", factor)
    _agree(scalings)
    return next(iter(bases.values()), default), next(iter(scalings.values()), None)


def context_of(values: Mapping[str, Any], scaling: RopeScaling | None) -> tuple[int, str | None]:
    """The longest sequence in tokens, and where it is a guess a line that says so.

    `max_sequence_length` where it is given. Else, with `linear` and `yarn`, the context before scaling
    (`original_max_position_embeddings`, or `max_position_embeddings`, which published files leave as it was) times the
    factor. Else `max_position_embeddings`; `llama3` and `longrope` state the whole there.
    """
    if values.get("max_sequence_length") is not None:
        return whole(values, "max_sequence_length"), None
    stated = whole(values, "max_position_embeddings") if values.get("max_position_embeddings") is not None else None
    if scaling is not None and scaling.kind in ("linear", "yarn"):
        for place in (values, _object(values, "rope_scaling") or {}, _parameters(values, FULL) or {}):
            if place.get("original_max_position_embeddings") is not None:
                return int(whole(place, "original_max_position_embeddings") * scaling.factor), None
        length = _DEFAULT_CONTEXT if stated is None else stated
        context = int(length * scaling.factor)
        return context, (
            f"max_position_embeddings {length} and a {scaling.kind} factor of {scaling.factor:g}: taking a context of "
            f"{context} tokens"
        )
    if stated is None:
        return _DEFAULT_CONTEXT, f"its config names no context: taking {_DEFAULT_CONTEXT} tokens"
    return stated, None


def local_base_of(values: Mapping[str, Any], default: float) -> float:
    """The base of the rotary frequencies in layers with a window, where these have one of their own, never scaled:
    `rope_local_base_freq`, or `sliding_attention` of `rope_parameters`.

    Raises:
      InputError: a value is wrong, is scaled, or two keys disagree; names them.
    """
    nested = _parameters(values, SLIDING)
    bases = {}
    if values.get("rope_local_base_freq") is not None:
        bases["rope_local_base_freq"] = number(values, "rope_local_base_freq")
    if nested is not None:
        name = f"rope_parameters.{SLIDING}"
        if _scaling(nested, name, values) is not None:
            raise InputError(f"{name} scales its positions; this feature is not supported, known is the type 'default'")
        if nested.get("rope_theta") is not None:
            bases[f"{name}.rope_theta"] = number(nested, "rope_theta", f"{name}.rope_theta")
    _agree(bases)
    return next(iter(bases.values()), default)


def _parameters(values: Mapping[str, Any], layers: str) -> Mapping[str, Any] | None:
    """`rope_parameters` of layers without a window (`FULL`) or with one; the plain form speaks of the first."""
    stated = _object(values, "rope_parameters")
    if stated is None or not {FULL, SLIDING} & set(stated):
        return stated if layers == FULL else None
    others = sorted(set(stated) - {FULL, SLIDING})
    if others:
        raise InputError(f"rope_parameters.{others[0]} stands beside {FULL} and {SLIDING}; keep only these two")
    return _object(stated, layers)


def scaling_to_hf(scaling: RopeScaling) -> dict[str, Any]:
    """`rope_scaling` of a `config.json`, as `rope_of` reads it."""
    values: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "linear":
        return values | {"type": "linear"}
    values["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "llama3":
        return values | {"low_freq_factor": scaling.low_frequency_factor, "high_freq_factor": scaling.high_frequency_factor}
    values |= {"type": scaling.kind, "attention_factor": scaling.attention_factor}
    if scaling.kind == "yarn":
        return values | {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow, "truncate": scaling.truncate}
    return values | {"short_factor": list(scaling.short_factors), "long_factor": list(scaling.long_factors)}


def number(values: Mapping[str, Any], key: str, name: str = "") -> float:
    """A finite number. Raises an `InputError` that names the key."""
    value = values[key]
    if type(value) not in (int, float) or abs(value) > 1e30 or not math.isfinite(value):
        raise InputError(f"{name or key} is {shown(value)}; it must be a finite number")
    return float(value)


def whole(values: Mapping[str, Any], key: str, name: str = "") -> int:
    """A whole number of at least 1. Raises an `InputError` that names the key."""
    value = values[key]
    if type(value) is not int or value < 1:
        raise InputError(f"{name or key} is {shown(value)}; it must be a whole number of at least 1")
    return value


def _object(values: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """A value that is an object; None where it is null, empty or missing."""
    value = values.get(key)
    if value is not None and not isinstance(value, dict):
        raise InputError(f"{key} is {shown(value)}; it must be an object")
    return value or None


def _agree(stated: Mapping[str, Any]) -> None:
    names = list(stated)
    for name in names[1:]:
        if stated[name] != stated[names[0]]:
            raise InputError(
                f"{names[0]} and {name} disagree ({_said(stated[names[0]])} and {_said(stated[name])}); keep the right one"
            )


def _said(value: Any) -> str:
    if isinstance(value, RopeScaling):
        return f"{value.kind} scaling by {value.factor:g}"
    return "no scaling" if value is None else f"{value:g}"


def _scaling(stated: Mapping[str, Any], name: str, values: Mapping[str, Any]) -> RopeScaling | None:
    kinds = [stated[key] for key in ("rope_type", "type") if stated.get(key) is not None]
    if len(kinds) == 2 and kinds[0] != kinds[1]:
        raise InputError(
            f"{name}.rope_type and {name}.type disagree ({shown(kinds[0])} and {shown(kinds[1])}); keep one of them"
        )
    kind = kinds[0] if kinds else "default"
    if not isinstance(kind, str) or kind not in _KEYS_OF:
        reason = _NOT_SUPPORTED.get(kind, "") if isinstance(kind, str) else ""
        raise InputError(f"{name} of type {shown(kind)} is not supported{reason}; supported are {', '.join(_KEYS_OF)}")
    for key, value in stated.items():
        if key not in _KEYS_OF[kind] and value is not None:
            raise InputError(
                f"{name}.{key} is {shown(value)}, which the type {kind!r} does not have; remove it or correct the type"
            )
    if stated.get("partial_rotary_factor") not in (None, 1):
        raise InputError(f"partial_rotary_factor is {shown(stated['partial_rotary_factor'])}; this feature is not supported")
    if kind == "default":
        return None
    try:
        # Where some files have it, `transformers` prefers the one at the top.
        above = values if values.get("original_max_position_embeddings") is not None else stated
        if kind in ("yarn", "longrope"):
            return _with_attention_factor(kind, stated, name, values, above)
        factor = number(stated, "factor", f"{name}.factor")
        if kind == "linear":
            return None if factor == 1 else RopeScaling("linear", factor)
        return RopeScaling(
            "llama3",
            factor=factor,
            low_frequency_factor=number(stated, "low_freq_factor", f"{name}.low_freq_factor"),
            high_frequency_factor=number(stated, "high_freq_factor", f"{name}.high_freq_factor"),
            original_context=whole(above, "original_max_position_embeddings"),
        )
    except KeyError as error:
        raise InputError(f"{name}.{error.args[0]} is missing; the type {kind!r} needs it") from error


def _with_attention_factor(
    kind: str, stated: Mapping[str, Any], name: str, values: Mapping[str, Any], above: Mapping[str, Any]
) -> RopeScaling:
    """`yarn` and `longrope`, with the defaults that `transformers` has."""

    def given(key: str, otherwise: float) -> float:
        return otherwise if stated.get(key) is None else number(stated, key, f"{name}.{key}")

    if above.get("original_max_position_embeddings") is None:
        above = {"original_max_position_embeddings": values["max_position_embeddings"]}
    original = whole(above, "original_max_position_embeddings")
    if kind == "longrope":
        stretched = (
            1.0 if values.get("max_position_embeddings") is None else whole(values, "max_position_embeddings") / original
        )
        factor = given("factor", stretched)
        recommended = 1.0 if factor <= 1 or original == 1 else math.sqrt(1 + math.log(factor) / math.log(original))
        return RopeScaling(
            "longrope",
            factor=factor,
            original_context=original,
            attention_factor=given("attention_factor", recommended),
            short_factors=_numbers(stated, "short_factor", name),
            long_factors=_numbers(stated, "long_factor", name),
        )
    factor = number(stated, "factor", f"{name}.factor")

    def magnitude(scale: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    both = given("mscale", 0), given("mscale_all_dim", 0)
    if stated.get("truncate") not in (None, False, True):
        raise InputError(f"{name}.truncate is {shown(stated['truncate'])}; it must be true or false")
    return RopeScaling(
        "yarn",
        factor=factor,
        original_context=original,
        beta_fast=given("beta_fast", 0) or 32.0,
        beta_slow=given("beta_slow", 0) or 1.0,
        truncate=stated.get("truncate") is not False,
        attention_factor=given("attention_factor", magnitude(both[0]) / magnitude(both[1]) if all(both) else magnitude(1)),
    )


def _numbers(stated: Mapping[str, Any], key: str, name: str) -> tuple[float, ...]:
    values = stated[key]
    if not isinstance(values, list):
        raise InputError(f"{name}.{key} is {shown(values)}; it must be a list of numbers")
    return tuple(number({key: value}, key, f"{name}.{key}") for value in values)
