"""What a judging run is: the settings, the model and the input that its judgments depend on, kept beside them.

While a run goes on its manifest lies in OUTPUT.partial/, afterwards at OUTPUT.manifest.json. A run that goes on, or that finds
its output complete, must be the same one.
"""

import json
import os
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError

VERSION = 1

# What a fingerprint holds as a hash, or is too much to show, in words.
_HASHED = {
    "model": "--model holds other weights",
    "prompt": "the prompt of this version of the package is another one",
    "input": "--input holds other records",
    "references": "--references holds other texts",
    "calibration": "--calibration holds other numbers",
}

Manifest = dict[str, Any]


def make(fingerprint: dict[str, Any], records: int, shards: int) -> Manifest:
    """The manifest of a run; `fingerprint` says by name what judgments depend on."""
    return {"version": VERSION, "records": records, "shards": shards, "fingerprint": fingerprint}


def beside(output: Path) -> Path:
    """Where the manifest of a finished output lies."""
    return output.with_name(output.name + ".manifest.json")


def write(path: Path, manifest: Manifest, temporary: Path) -> None:
    """Writes the manifest, by way of a temporary file on the same disk; it appears at once and is on disk then."""
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read(path: Path) -> Manifest:
    """The manifest in this file.

    Raises:
      InputError: it is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["fingerprint"].keys() and all(isinstance(found[name], int) for name in ("version", "records", "shards")):
            return found
        raise ValueError
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: is damaged, or no manifest of a judging run; remove it to start anew") from error


def differences(path: Path, wanted: Manifest, fields: tuple[str, ...] = ("version", "records", "shards")) -> list[str]:
    """How the run of the manifest at `path` differs from the wanted one: a phrase for each field, none where they are the same.

    `fields`: those beside the fingerprint that must be the same.

    Raises:
      InputError: it is no manifest.
    """
    found = read(path)
    before, now = found["fingerprint"], wanted["fingerprint"]
    return [_phrase(name, found[name], wanted[name]) for name in fields if found[name] != wanted[name]] + [
        _phrase(name, before.get(name), now.get(name)) for name in sorted(before | now) if before.get(name) != now.get(name)
    ]


def _phrase(name: str, before: Any, now: Any) -> str:
    if name in _HASHED and before is not None and now is not None:
        return _HASHED[name]
    if name in _HASHED or name in ("version", "records", "shards"):
        return f"{name}: {_shown(name, now)} and the run began with {_shown(name, before)}"
    return f"--{name} is {_shown(name, now)} and the run began with {_shown(name, before)}"


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "none"
    return "others" if name in _HASHED else str(value)
