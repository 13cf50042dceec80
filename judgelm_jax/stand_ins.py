"""How files begin that hold something else than their name says: Git LFS pointers, compressed files, web pages."""

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


def stand_in(start: bytes) -> str | None:
    """What a file that begins so is instead of the one that was asked for, and how to get that; None: nothing is known."""
    for sign, fault in _SIGNS.items():
        if start.lstrip().lower().startswith(sign) or start.startswith(sign):
            return fault
    return None
