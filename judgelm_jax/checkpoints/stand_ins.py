"""Files of a checkpoint that hold something else than their name says, or nothing."""

from collections.abc import Iterable
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.stand_ins import stand_in

_PACKED = (".gz", ".xz", ".zst", ".bz2", ".zip", ".tar")


def refuse_stand_ins(files: Iterable[Path]) -> None:
    """Looks at how each file begins.

    Raises:
      InputError: names the first that is a pointer, compressed, a web page or empty, and says how to get the file itself.
    """
    for file in files:
        if not file.is_file():
            continue
        with file.open("rb") as opened:
            start = opened.read(32)
        if not start:
            raise InputError(f"{file}: broken or cut off (it is empty); fetch the file again")
        if fault := stand_in(start):
            raise InputError(f"{file}: {fault}")


def refuse_packed(folder: Path, names: Iterable[str]) -> None:
    """Looks for files that a folder has in compressed form only.

    Raises:
      InputError: names the first, where neither it nor any other of `names` lies there as it is.
    """
    names = list(names)
    if any((folder / name).exists() for name in names):
        return
    for name in names:
        for end in _PACKED:
            if (folder / f"{name}{end}").is_file():
                raise InputError(f"{folder / name}{end}: is compressed: unpack it to {name}")
