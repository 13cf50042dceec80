"""The rotary positions and the context that a `config.json` states, in its old form, its new one, and LongChat's."""

import math
from collections.abc import Mapping
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.model.config import RopeScaling
from judgelm_jax.model.config_keys import shown

CONDENSED = "rope_condense_ratio"

_DEFAULT_BASE = 10000.0
_DEFAULT_CONTEXT = 2048  # both as in `transformers`
_NAMES = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "finetuned"}
_KEYS_OF = {
    "default": _NAMES,
    "linear": _NAMES | {"factor", "original_max_position_embeddings"},
    "llama3": _NAMES | {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
}


def rope_of(values: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """The base of the rotary frequencies and their scaling.

    Old form: `rope_theta` and `rope_scaling`; new form: `rope_parameters`. A file may have both where they say the same.
    `rope_condense_ratio` (LongChat) divides positions, which is linear scaling.

    Raises:
      InputError: a value is wrong, a kind of scaling is not supported, or two keys disagree; names them.
    """
    old, new = _object(values, "rope_scaling"), _object(values, "rope_parameters")
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
    return next(iter(bases.values()), _DEFAULT_BASE), next(iter(scalings.values()), None)


def context_of(values: Mapping[str, Any], scaling: RopeScaling | None) -> tuple[int, str | None]:
    """The longest sequence in tokens, and where it is a guess a line that says so.

    `max_sequence_length` where it is given. Else, with linear scaling, the context before scaling
    (`original_max_position_embeddings`, or `max_position_embeddings`, which published files leave as it was) times the
    factor. Else `max_position_embeddings`; `llama3` states the whole there.
    """
    if values.get("max_sequence_length") is not None:
        return whole(values, "max_sequence_length"), None
    stated = whole(values, "max_position_embeddings") if values.get("max_position_embeddings") is not None else None
    if scaling is not None and scaling.kind == "linear":
        for place in (values, _object(values, "rope_scaling") or {}, _object(values, "rope_parameters") or {}):
            if place.get("original_max_position_embeddings") is not None:
                return int(whole(place, "original_max_position_embeddings") * scaling.factor), None
        length = _DEFAULT_CONTEXT if stated is None else stated
        context = int(length * scaling.factor)
        return context, (
            f"max_position_embeddings {length} and a linear factor of {scaling.factor:g}: taking a context of {context} tokens"
        )
    if stated is None:
        return _DEFAULT_CONTEXT, f"its config names no context: taking {_DEFAULT_CONTEXT} tokens"
    return stated, None


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
        raise InputError(f"{name} of type {shown(kind)} is not supported; supported are default, linear and llama3")
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
        factor = number(stated, "factor", f"{name}.factor")
        if kind == "linear":
            return None if factor == 1 else RopeScaling("linear", factor)
        # Where some files have it, `transformers` prefers the one at the top.
        above = values if values.get("original_max_position_embeddings") is not None else stated
        return RopeScaling(
            "llama3",
            factor=factor,
            low_frequency_factor=number(stated, "low_freq_factor", f"{name}.low_freq_factor"),
            high_frequency_factor=number(stated, "high_freq_factor", f"{name}.high_freq_factor"),
            original_context=whole(above, "original_max_position_embeddings"),
        )
    except KeyError as error:
        raise InputError(f"{name}.{error.args[0]} is missing; the type {kind!r} needs it") from error
