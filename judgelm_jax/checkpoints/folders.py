"""Folders that appear when all in them is written, or not at all; what a killed process wrote of them is kept for the next."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import safetensors

from judgelm_jax.errors import InputError

_IDENTITY = "of.txt"


@contextlib.contextmanager
def published(target: Path, size: int, identity: str | None = None) -> Iterator[Path]:
    """Yields a path to write a folder to, then puts that folder at `target`. After an error, nothing is left.

    Work is done in a hidden folder beside the target, which only one process has at a time. What a killed one left there goes
    away, unless it wrote the same: then it is found at the path, and next to it.

    Args:
      size: the bytes that the folder will have.
      identity: tells what is written from everything else; None: what was left is never the same.

    Raises:
      InputError: another process writes the target right now, the disk is full, or what is written fails.
    """
    work = target.with_name(f".{target.name}.partial")
    try:
        with _owned(work, target, identity):
            try:
                free = shutil.disk_usage(work).free
                missing = size - sum(path.lstat().st_size for path in work.rglob("*") if path.is_file())
                if free < missing:
                    needed = f"the checkpoint needs {missing / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free"
                    raise InputError(f"{target}: the disk is full ({needed}); free space and run again, nothing was written")
                yield work / "checkpoint"
                flush(work / "checkpoint")
                replace_folder(work / "checkpoint", target, work / "replaced")
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        full = any(sign in str(error) for sign in ("No space left", "Disk quota exceeded"))
        reason = "the disk is full; free space" if full else f"could not be written ({error}); fix that"
        raise InputError(f"{target}: {reason} and run again, nothing was left there") from error


def replace_folder(folder: Path, target: Path, aside: Path) -> None:
    """Renames a folder to the target; what existed is put aside, or back if that fails."""
    if target.exists():
        target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise


@contextlib.contextmanager
def _owned(work: Path, target: Path, identity: str | None) -> Iterator[None]:
    """Makes the folder `work` and keeps a lock on it, which ends with the process, however that ends. Empties the folder unless
    what is in it has this identity."""
    while True:
        work.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise
                raise InputError(
                    f"{target}: another process writes it right now; wait until that one is done, or choose another target"
                ) from error
            if not _is_still(work, descriptor):
                continue  # another one was done with it, and removed it, before the lock was ours
            if identity is None or _identity(work) != identity:
                for left in work.iterdir():
                    shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
                (work / _IDENTITY).write_text(identity or "", encoding="utf-8")
            yield
            return
        finally:
            os.close(descriptor)


def _is_still(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _identity(work: Path) -> str | None:
    try:
        return (work / _IDENTITY).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def flush(folder: Path) -> None:
    """Waits until the files of a folder are on the disk, so that its final name never stands for lost data."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
