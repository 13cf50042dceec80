"""What the processes of a run say of themselves, and the table that process 0 prints of it."""

import importlib.metadata
import json
import platform
from typing import Any

import jax

from judgelm_jax.errors import InputError
from judgelm_jax.processes import store

# What computes, writes or reads: with other versions results may differ, or a program may not be the same on all devices.
PACKAGES = ("judgelm_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tokenizers", "numpy")
_ACCELERATOR_PACKAGES = ("jax-cuda12-plugin", "jax-cuda13-plugin", "libtpu")
_SECONDS = 300.0


def versions() -> dict[str, str]:
    """Of Python and the packages, by name."""
    found = {name: _version(name) for name in (*PACKAGES, *_ACCELERATOR_PACKAGES)}
    return {"Python": platform.python_version()} | {name: version for name, version in found.items() if version}


def introduce() -> None:
    """Prints, in process 0, who takes part: a line a process with its host, its devices and versions.

    Raises:
      InputError: a process has other devices than process 0; names its host.
    """
    if not store.are_joined():
        return
    local = jax.local_devices()
    facts = {"host": store.host(), "devices": len(local), "kind": local[0].device_kind, "platform": local[0].platform}
    own, every = versions(), range(store.count())
    shown = {name: own[name] for name in ("judgelm_jax", "jax", "jaxlib", "Python", *_ACCELERATOR_PACKAGES) if name in own}
    store.put(f"introduction/{store.own()}", json.dumps(facts | {"versions": shown}))
    all_facts = [json.loads(store.wait(f"introduction/{number}", _SECONDS)) for number in every]
    if store.own() == 0:
        print(_table(all_facts), flush=True)
    first = all_facts[0]
    for number, other in enumerate(all_facts):
        if any(other[name] != first[name] for name in ("devices", "kind")):
            raise InputError(
                f"process {number} on {other['host']} has {_devices(other)}, and process 0 on {first['host']} has "
                f"{_devices(first)}; give all processes the same devices"
            )


def _table(all_facts: list[dict[str, Any]]) -> str:
    rows = [("process", "host", "devices", "versions")]
    rows += [
        (str(number), facts["host"], _devices(facts), " ".join(f"{name} {v}" for name, v in facts["versions"].items()))
        for number, facts in enumerate(all_facts)
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows]
    total = sum(facts["devices"] for facts in all_facts)
    return "\n".join([*lines, f"{len(all_facts)} processes, {total} devices"])


def _devices(facts: dict[str, Any]) -> str:
    return f"{facts['devices']} × {facts['kind']}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
