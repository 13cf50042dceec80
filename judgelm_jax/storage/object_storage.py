"""Objects of a store (`s3://`, `gs://`) by their URLs, through fsspec: looked at, fetched, put and removed, each tried again
where the store is slow, busy or cut off."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import re
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

from judgelm_jax.errors import InputError

T = TypeVar("T")

# Stores in which folders can be listed and objects written, and what installs each.
STORES = {"s3": "s3", "gs": "gs"}
URL = re.compile(r"([a-z][a-z0-9+.-]+)://.+")

_ATTEMPTS = 4  # of each several requests, with waits of 0.5, 1, 2 s between them
_TIMEOUT = 60  # seconds without an answer


@dataclasses.dataclass(frozen=True)
class Stored:
    """An object: its URL, its size in bytes, and a text that changes with its content."""

    url: str
    size: int
    version: str


def scheme_of(text: str) -> str | None:
    """The scheme of a URL; None of a path."""
    match = URL.fullmatch(text)
    return None if match is None else match[1]


def find(url: str) -> list[Stored]:
    """The object at a URL, else all objects below it; none where there are none.

    Raises:
      InputError: the store does not answer, or does not allow it.
    """
    system = _system(url)

    def ask() -> list[Stored]:
        try:
            found = system.info(url)
        except FileNotFoundError:
            return []
        if found["type"] == "file":
            return [_stored(url, found)]
        below = system.find(url.rstrip("/") + "/", detail=True)
        start = system._strip_protocol(url).rstrip("/")
        return [_stored(url.rstrip("/") + name[len(start) :], entry) for name, entry in sorted(below.items())]

    return _tried(url, ask)


def fetch(stored: Stored, path: Path) -> None:
    """Copies an object to a file, which appears when it is whole.

    Raises:
      InputError: as `find`, or the object goes away or changes meanwhile.
    """
    system = _system(stored.url)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")

    def get() -> None:
        system.get_file(stored.url, str(unfinished))
        if unfinished.stat().st_size != stored.size:
            raise OSError(f"{unfinished.stat().st_size} of {stored.size} bytes came")

    try:
        _tried(stored.url, get)
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)


def put(path: Path, url: str) -> None:
    """Copies a file to an object, which appears when it is whole, in place of what was there. Raises as `find`."""
    system, size = _system(url), path.stat().st_size

    def send() -> None:
        system.put_file(str(path), url)
        if system.info(url)["size"] != size:
            raise OSError("it did not arrive whole")

    _tried(url, send)


def put_folder(folder: Path, url: str, last: Collection[str]) -> None:
    """Copies the files of a folder: the largest first, and last those at its top that `last` names, which tell that it is
    whole. Raises as `find`."""
    files = sorted((file for file in folder.rglob("*") if file.is_file()), key=lambda file: -file.stat().st_size)
    for file in sorted(files, key=lambda file: file.parent == folder and file.name in last):
        put(file, f"{url.rstrip('/')}/{file.relative_to(folder).as_posix()}")


def create(content: bytes, url: str) -> None:
    """Makes a small object that does not exist.

    Raises:
      InputError: it exists with another content: another process writes there; or as `find`.
    """
    system = _system(url)

    def send() -> None:
        try:
            system.pipe_file(url, content, mode="create")
        except FileExistsError:
            if system.cat_file(url) != content:  # else an attempt before has arrived, and its answer has not
                raise InputError(f"{url}: another process writes it; wait for it to end, or stop it") from None

    _tried(url, send)


def read(stored: Stored) -> bytes:
    """The content of a small object. Raises as `fetch`."""

    def get() -> bytes:
        content = _system(stored.url).cat_file(stored.url)
        if len(content) != stored.size:
            raise OSError(f"{len(content)} of {stored.size} bytes came")
        return content

    return _tried(stored.url, get)


def remove(stored: list[Stored]) -> None:
    """Removes objects, in this order. Raises as `find`."""
    for one in stored:

        def delete(one: Stored = one) -> None:
            with contextlib.suppress(FileNotFoundError):
                _system(one.url).rm_file(one.url)

        _tried(one.url, delete)


def inside(url: str, folder: str) -> str:
    """The path of an object in its folder; what names come from the store must not lead out of it."""
    path = url[len(folder.rstrip("/")) + 1 :]
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise InputError(f"{url}: is no name of a file; remove the object")
    return path


def _stored(url: str, entry: dict[str, Any]) -> Stored:
    told = {name: str(entry.get(name)) for name in ("ETag", "etag", "generation", "LastModified", "mtime", "size")}
    return Stored(url, entry["size"] or 0, hashlib.sha256(repr(told).encode()).hexdigest())


def _tried(url: str, action: Callable[[], T]) -> T:
    for attempt in range(_ATTEMPTS):
        try:
            return action()
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"{url}: there is nothing; check the name") from error
        except PermissionError as error:
            raise InputError(f"{url}: not allowed ({_line(error)}); check the credentials in the environment") from error
        except Exception as error:  # each store raises its own
            if type(error).__name__ == "NoCredentialsError":
                raise InputError(
                    f"{url}: there are no credentials; set them in the environment, as AWS_ACCESS_KEY_ID"
                ) from error
            if attempt == _ATTEMPTS - 1:
                raise InputError(f"{url}: the store does not answer ({_line(error)}); check the network and go on") from error
            time.sleep(0.5 * 2**attempt)
    raise AssertionError


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _system(url: str) -> Any:
    scheme = scheme_of(url)
    assert scheme is not None
    return _system_of(scheme, os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))


@functools.cache
def _system_of(scheme: str, endpoint: str | None) -> Any:
    """fsspec's file system; it keeps no listings, for others write there, too."""
    import fsspec

    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3":
        times = {"connect_timeout": 10, "read_timeout": _TIMEOUT, "retries": {"max_attempts": 3, "mode": "standard"}}
        options |= {"endpoint_url": endpoint, "config_kwargs": times}
    if scheme not in fsspec.available_protocols():
        raise InputError(f"{scheme}://: no such store; use s3:// or gs://, or a path")
    try:
        return fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise InputError(
            f"{scheme}:// needs a package ({_line(error)}); pip install 'judgelm-jax[{STORES.get(scheme, '')}]'"
        ) from error
