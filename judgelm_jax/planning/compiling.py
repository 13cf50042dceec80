"""Programs through the compiler of hardware that may be absent; what came out is kept on disk, for compilers are slow."""

import contextlib
import dataclasses
import gzip
import hashlib
import importlib.metadata
import json
import os
import re
from pathlib import Path
from typing import Any

from judgelm_jax.devices.runtime import cache_folder
from judgelm_jax.judging.programs import GPU_OPTIONS, GPU_OPTIONS_INT8
from judgelm_jax.planning.topology import Topology

_PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda13-plugin", "nvidia-cudnn-cu13")
# All that a program needs; or, where they alone are more than there is, what its temporaries need.
_OUT_OF_MEMORY = re.compile(r"(?:Used |HLO temporaries \()([\d.]+)([KMG])(?: of [\d.]+[KMG] hbm|\) exceeds available HBM)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a compiler made of a program. `memory`: bytes on one device; `text`: the optimized program, empty where the
    compiler refused it because it needs more memory than a device has."""

    memory: float
    text: str


def versions() -> dict[str, str]:
    """The packages that decide what comes out; those that are not installed are left out."""
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def compile_for(lowered: Any, topology: Topology) -> Compiled:
    """Compiles a program that was lowered for devices of `topology`, unless the same was before."""
    kept = _kept(lowered, topology)
    if kept is not None and kept.is_file():
        with gzip.open(kept, "rt", encoding="utf-8") as file, contextlib.suppress(ValueError, KeyError, EOFError):
            held = json.load(file)
            return Compiled(held["memory"], held["text"])
    compiled = _compile(lowered)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        temporary = kept.with_suffix(f".{os.getpid()}")
        with gzip.open(temporary, "wt", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(compiled), file)
        os.replace(temporary, kept)
    return compiled


def _compile(lowered: Any) -> Compiled:
    try:
        executable = lowered.compile()
    except Exception as error:  # compilers for TPUs refuse what does not fit, with an exception that JAX does not export
        needed = _OUT_OF_MEMORY.search(str(error))
        if needed is None:
            raise
        return Compiled(float(needed[1]) * _UNITS[needed[2]], "")
    return Compiled(memory_of(executable), _text(executable))


def memory_of(executable: Any) -> float:
    """Bytes on one device while a compiled program runs: arguments, results that take no argument's place, temporaries."""
    said = executable.memory_analysis()
    arguments, results = said.argument_size_in_bytes, said.output_size_in_bytes - said.alias_size_in_bytes
    return float(arguments + results + said.temp_size_in_bytes)


def _text(executable: Any) -> str:
    try:
        return executable.as_text()
    except Exception:  # some programs for TPUs cannot be read back: the compiler wrote them to a folder, too
        written = sorted(Path(os.environ["JUDGELM_PLAN_DUMP"]).glob("*TLP-hlo.txt"), key=lambda path: path.stat().st_mtime)
        if not written:
            raise
        return written[-1].read_text(encoding="utf-8", errors="replace")


def _kept(lowered: Any, topology: Topology) -> Path | None:
    """Where the result is kept: a name made of the program, the hardware, the compiler and what it is told."""
    folder = cache_folder()
    if folder is None:
        return None
    told = [topology.name, dataclasses.asdict(topology.hardware), versions(), GPU_OPTIONS, GPU_OPTIONS_INT8]
    digest = hashlib.sha256(json.dumps(told).encode())
    digest.update(lowered.as_text().encode())
    return folder / "plans" / f"{digest.hexdigest()[:32]}.json.gz"
