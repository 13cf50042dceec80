"""What tells any two checkpoints apart: digests of the whole content of their files, each computed once.

A digest is kept with what the system says of the file (device, inode, size, times of change), in the user's cache folder.
Nobody can set the time of the last change of an inode, so a file that was changed in place is read again even where its size
and modification time were restored.
"""

import concurrent.futures
import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from judgelm_jax.checkpoints.tensor_names import Weights, grouped
from judgelm_jax.devices.runtime import cache_folder
from judgelm_jax.records.output_files import write_atomically

# Parts of a file are digested at once. SHA-256 is the fastest of hashlib where the processor knows it (0.6 GB/s on a core here,
# BLAKE2b 0.25).
_PART_BYTES = 16 * 2**20
_GROUP_BYTES = 64 * 2**20
_KEPT = 2000  # digests
# A file may change once more within the same tick of its clock: what changed so lately is not kept.
_SETTLED_SECONDS = 2.0


def of_files(folder: Path, files: Iterable[Path]) -> str:
    """The digest of names (relative to `folder`) and contents of files."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(
            f"{file.relative_to(folder).as_posix()} {_kept((file,), functools.partial(_of_content, file))}\n".encode()
        )
    return digest.hexdigest()


def of_tensors(weights: Weights, files: Iterable[Path]) -> str:
    """The digest of names, dtypes, shapes and bytes of tensors, whatever files hold them; kept as long as `files` stay."""

    def compute() -> str:
        digest = hashlib.sha256()
        for group in grouped(weights.tensors, sorted(weights.tensors), _GROUP_BYTES):
            for name, tensor in weights.read(group).items():
                digest.update(f"{name} {tensor.dtype.name} {tensor.shape}\n".encode())
                digest.update(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    return _kept(tuple(sorted(files)), compute)


def of_parts(*parts: str) -> str:
    """The digest of other digests and texts, in their order."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _of_content(file: Path) -> str:
    """The digest of the digests of the parts of a file, which are read by several threads."""
    size = file.stat().st_size

    def part(offset: int) -> bytes:
        return hashlib.sha256(os.pread(descriptor, _PART_BYTES, offset)).digest()

    descriptor = os.open(file, os.O_RDONLY)
    try:
        with concurrent.futures.ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            parts = b"".join(threads.map(part, range(0, size, _PART_BYTES)))
    finally:
        os.close(descriptor)
    return hashlib.sha256(f"{size}\n".encode() + parts).hexdigest()


def _kept(files: tuple[Path, ...], compute: Callable[[], str]) -> str:
    """The digest that was computed of these files before, or `compute()`, which is kept."""
    before = state_of(files)
    found = _read().get(before)
    if found is not None:
        return found
    digest = compute()
    youngest = max(file.stat().st_ctime for file in files)
    if state_of(files) == before and time.time() - youngest > _SETTLED_SECONDS:
        _keep(before, digest)
    return digest


def state_of(files: tuple[Path, ...]) -> str:
    """Another one whenever one of the files was changed or replaced; reads none of them."""
    stats = [file.stat() for file in files]
    told = [(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _path() -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "fingerprints.json"


def _read() -> dict[str, str]:
    path = _path()
    if path is None:
        return {}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in kept.items() if isinstance(v, str)} if isinstance(kept, dict) else {}


def _keep(state: str, digest: str) -> None:
    """Adds one to those that are kept. Processes that do so at once may lose one of theirs, which is computed again."""
    path = _path()
    if path is None:
        return
    with contextlib.suppress(OSError):
        kept = dict(list((_read() | {state: digest}).items())[-_KEPT:])
        with write_atomically(path) as file:
            json.dump(kept, file)


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder and of those in it."""
    return (path for path in folder.rglob("*") if path.is_file())
