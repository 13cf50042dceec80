"""Files that hold something else than their name says, or nothing: Git LFS pointers, compressed files, web pages."""

from collections.abc import Iterable
from pathlib import Path

from judgelm_jax.errors import InputError

# How a file begins → what it is, and what to do.
_SIGNS = {
    b"version https://git-lfs": "is a Git LFS pointer: run git lfs pull in its repository to get the file itself",
    b"version https://hawser": "is a Git LFS pointer: run git lfs pull in its repository to get the file itself",
    b"\x1f\x8b": "is compressed with gzip: unpack it with gunzip (it may have to be renamed to NAME.gz first)",
    b"\xfd7zXZ\x00": "is compressed with xz: unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd: unpack it with unzstd",
    b"BZh": "is compressed with bzip2: unpack it with bunzip2",
    b"<!doctype html": "is a web page, not the file itself: download the file behind it",
    b"<html": "is a web page, not the file itself: download the file behind it",
}

_PACKED = (".gz", ".xz", ".zst", ".bz2", ".zip", ".tar")


def stand_in(start: bytes) -> str | None:
    """What a file that begins so is instead of the one that was asked for, and how to get that; None: nothing is known."""
    for sign, fault in _SIGNS.items():
        if start.lstrip().lower().startswith(sign) or start.startswith(sign):
            return fault
    return None


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
