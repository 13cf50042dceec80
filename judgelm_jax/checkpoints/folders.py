"""Folders that appear when all in them is written, or not at all."""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import safetensors

from judgelm_jax.errors import InputError


@contextlib.contextmanager
def published(target: Path, size: int) -> Iterator[Path]:
    """Yields a path to write a folder to, then puts that folder at `target`. After an error, nothing is left.

    Work is done in a hidden folder beside the target, which only one process has at a time; what a killed one left there goes
    away. `size`: the bytes that it will need.

    Raises:
      InputError: another process writes the target right now, the disk is full, or what is written fails.
    """
    work = target.with_name(f".{target.name}.partial")
    try:
        with _owned(work, target):
            try:
                free = shutil.disk_usage(work).free
                if free < size:
                    needed = f"the checkpoint needs {size / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free"
                    raise InputError(f"{target}: the disk is full ({needed}); free space and run again, nothing was written")
                yield work / "checkpoint"
                _flush(work / "checkpoint")
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
def _owned(work: Path, target: Path) -> Iterator[None]:
    """Makes the folder `work`, empties it and keeps a lock on it; the lock ends with the process, however that ends."""
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
            for left in work.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            yield
            return
        finally:
            os.close(descriptor)


def _is_still(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _flush(folder: Path) -> None:
    """Waits until the files of a folder are on the disk, so that its final name never stands for lost data."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
