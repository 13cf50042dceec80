"""Converting a checkpoint into another form. The target appears when all of it is written, or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import safetensors

from judgelm_jax.checkpoints import orbax_store
from judgelm_jax.checkpoints.opening import Checkpoint, is_checkpoint
from judgelm_jax.checkpoints.tensors import SHARD_BYTES, stored_bytes, write_hf
from judgelm_jax.errors import InputError


def convert(source: Checkpoint, target: Path, to: str, overwrite: bool = False, shard_bytes: int = SHARD_BYTES) -> None:
    """Writes `source` to `target` as a converted directory (`orbax`) or a Hugging Face folder (`hf`), bit by bit.

    Host memory holds one shard of `shard_bytes` (`hf`) or 256 MiB (`orbax`), or one tensor where that is larger. Work is
    done in a hidden folder beside the target; what a killed conversion left there goes away with the next one.

    Raises:
      InputError: the target exists and may not be replaced, lies in the source, or could not be written.
    """
    target = target.absolute()
    _check_target(source, target, to, overwrite)
    with _published(target, stored_bytes(source.weights, source.config)) as folder:
        if to == "orbax":
            orbax_store.write_store(folder, source.weights, source.config, source.hf_config)
            companions = folder / orbax_store.TOKENIZER_FOLDER
        else:
            companions = folder
            folder.mkdir()
            write_hf(folder, source.weights, source.config, source.hf_config, shard_bytes)
        companions.mkdir(exist_ok=True)
        for file in source.companions():
            shutil.copyfile(file, companions / file.name)


def _check_target(source: Checkpoint, target: Path, to: str, overwrite: bool) -> None:
    origin, place = source.folder.resolve(), target.resolve()
    if origin == place or origin in place.parents or place in origin.parents:
        raise InputError(f"{target}: the source {source.folder} lies there; choose a target outside of it")
    if to == "orbax" and set(str(target)) & set("*?["):
        raise InputError(f"{target}: Orbax cannot write to a path with *, ? or [ in it; choose another target")
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise InputError(f"{target}: exists already; choose another target or pass --overwrite")
    if not target.is_dir() or target.is_symlink() or not (is_checkpoint(target) or not any(target.iterdir())):
        raise InputError(f"{target}: is no checkpoint, so it is not overwritten; choose another target")


@contextlib.contextmanager
def _published(target: Path, size: int) -> Iterator[Path]:
    """Yields a path to write a folder to, then puts that folder at `target`. After an error, nothing is left."""
    work = target.with_name(f".{target.name}.partial")
    try:
        if work.exists():
            shutil.rmtree(work)
        work.mkdir(parents=True)
        free = shutil.disk_usage(work).free
        if free < size:
            needed = f"the checkpoint needs {size / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free"
            raise InputError(f"{target}: the disk is full ({needed}); free space and run again, nothing was written")
        yield work / "checkpoint"
        _flush(work / "checkpoint")
        replace_folder(work / "checkpoint", target, work / "replaced")
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        full = any(sign in str(error) for sign in ("No space left", "Disk quota exceeded"))
        reason = "the disk is full; free space" if full else f"could not be written ({error}); mend that"
        raise InputError(f"{target}: {reason} and run again, nothing was left there") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def replace_folder(folder: Path, target: Path, aside: Path) -> None:
    """Renames a folder to the target; what stood there is put aside, or back if that fails."""
    if target.exists():
        target.rename(aside)
    try:
        folder.rename(target)
    except OSError:
        if aside.exists():
            aside.rename(target)
        raise


def _flush(folder: Path) -> None:
    """Waits until the files of a folder are on the disk, so that its final name never stands for lost data."""
    for path in [folder, *folder.rglob("*")]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
