"""The JSON object in a file of a checkpoint, read strictly: what two programs would read differently is refused."""

import json
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.records.stand_ins import stand_in

# Deeper values mean nothing in these files, and Python's own limit depends on who calls.
_MAX_NESTING = 100


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a file of UTF-8 JSON.

    Raises:
      InputError: one line that names the file: not UTF-8, a byte order mark, no JSON (NaN and Infinity are none), a key
        twice in one object, values nested too deep, or no object.
    """
    content = path.read_bytes()
    try:
        values = json.loads(_text(content), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        if not isinstance(values, dict):
            raise ValueError("holds no JSON object")
        if content.count(b"[") + content.count(b"{") > _MAX_NESTING and _too_deep(values):
            raise ValueError(f"has values nested more than {_MAX_NESTING} deep")
    except RecursionError as error:
        raise InputError(f"{path}: has values nested more than {_MAX_NESTING} deep; fetch the checkpoint again") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{error.lineno}: not valid JSON ({error.msg}, column {error.colno}); fetch the checkpoint again"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: {_short(error)}; fetch the checkpoint again") from error
    return values


def _text(content: bytes) -> str:
    if fault := stand_in(content[:64]):
        raise ValueError(fault)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("is UTF-16 or UTF-32; JSON is UTF-8")
    if content.startswith(b"\xef\xbb\xbf"):
        raise ValueError("begins with a byte order mark, which JSON does not have; save it without")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start})") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key[:80]!r} occurs in one object twice")
        values[key] = value
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not valid JSON ({name} is no number)")


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_NESTING):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _short(error: ValueError) -> str:
    text = str(error)
    return text if len(text) <= 200 else f"{text[:200]}…"
