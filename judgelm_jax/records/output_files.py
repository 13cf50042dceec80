"""Outputs that are there whole or not at all, and take the place of nothing that is kept."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from judgelm_jax.errors import InputError


def check_output(path: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuses, before any work, an output that exists (unless `overwrite`), is no plain file, is one of the inputs, or whose
    folder cannot be written to. A folder that is missing is no error: it is made.

    Raises:
      InputError: says what is wrong with it.
    """
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise InputError(f"{path}: {parent} is no folder; choose another place for the output")
    if any(path.resolve() == other.resolve() for other in inputs):
        raise InputError(f"{path}: is also read or written by this command; choose another name for the output")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: exists and is no plain file; choose another name for the output")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; choose another name, or pass --overwrite to replace it")
    try:
        with tempfile.TemporaryFile(dir=parent):  # permissions alone do not tell of file systems that are read only
            pass
    except OSError as error:
        raise InputError(f"{path}: nothing can be written to {parent} ({error.strerror}); choose another place") from error


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[TextIO]:
    """Opens a text file that appears under `path` when it is complete and on disk.

    An error leaves nothing behind. Folders that are missing are made. An `OSError` (a full disk) names
    `path`.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.filename is None or error.filename == str(temporary):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
