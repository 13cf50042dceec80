"""Flags that name objects of a store instead of files: read through a local copy, written when the command is done.

What is read is fetched once and kept in the user's cache folder as long as the object stays the same. A file that is written
is put when the command has ended well; an object appears whole or not at all. Lines for the user show the URLs.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from judgelm_jax.errors import InputError
from judgelm_jax.storage import object_storage

# Files of JSON Lines or JSON that commands read, which may also come from the web.
_FILES = {
    "against", "answers", "calibration", "data", "evaluation", "input", "judgments", "labels", "predictions", "questions",
    "references", "repeated", "reversed_predictions",
}  # fmt: skip
_MODELS = {"base", "init_from", "model", "source", "tokenizer"}
# What commands write, by the command where not all write it: a file that is put at the end, or a folder.
_WRITTEN_FILES = {
    ("prepare", "labels"),
    ("prepare", "output"),
    ("export", "output"),
    ("rank", "output"),
    ("calibrate", "output"),
}
_WRITTEN_FOLDERS = {("convert", "target")}
_JUDGED, _TRAINED = ("judge", "output"), ("train", "output")

_names: dict[str, str] = {}  # local path -> URL, of the command that runs


def shown(text: str) -> str:
    """A line with the URLs that the user gave in place of their local copies."""
    for path, url in _names.items():
        text = text.replace(path, url)
    return text


@contextlib.contextmanager
def at_hand(command: str, flag_values: flags.FlagValues) -> Iterator[None]:
    """Puts local paths in the place of URLs, while the command runs in the block; then puts what it wrote.

    Raises:
      InputError: a flag takes no URL, or the store does not do what is asked of it.
    """
    _names.clear()
    with contextlib.ExitStack() as stack:
        written: list[tuple[Path, str]] = []
        for name in sorted(flag_values):
            value: Any = flag_values[name].value
            values = value if isinstance(value, list) else [value]
            if not any(isinstance(one, str) and object_storage.scheme_of(one) for one in values):
                continue
            if name not in _FILES | _MODELS and name not in {"json", "output", "target", "report"}:
                continue  # no path
            paths = [
                _local(command, name, one, flag_values, written, stack)
                if isinstance(one, str) and object_storage.scheme_of(one)
                else one
                for one in values
            ]
            flag_values[name].value = paths if isinstance(value, list) else paths[0]
        yield
        for path, url in written:
            _put(path, url)


def _local(
    command: str,
    name: str,
    url: str,
    flag_values: flags.FlagValues,
    written: list[tuple[Path, str]],
    stack: contextlib.ExitStack,
) -> str:
    scheme = object_storage.scheme_of(url)
    if name in {"json", "output", "target", "report"} or (command, name) in _WRITTEN_FILES:
        if scheme not in object_storage.STORES:
            raise InputError(f"--{name}={url}: nothing can be written to {scheme}://; use s3://, gs:// or a path")
        for several, alone in (("distributed", False), ("coordinator", None)):
            if several in flag_values and flag_values[several].value != alone:
                raise InputError(f"--{name}={url}: one process writes it; leave --{several} out, or give a path")
        place = _place("written", url) / "run" / _last(url)
        if (command, name) == _JUDGED:
            _judged(place, url, flag_values, stack)
        elif (command, name) == _TRAINED:
            _trained(place, url, stack)
        elif name == "json" or (command, name) in _WRITTEN_FILES | _WRITTEN_FOLDERS:
            _begin(place, url, (command, name) in _WRITTEN_FOLDERS, stack)
            written.append((place, url))
        else:
            raise InputError(f"--{name}={url}: judgelm-{command} writes it to a path only; copy it to the store afterwards")
        _names[str(place)] = url
        return str(place)
    if scheme not in object_storage.STORES and name not in _FILES:
        raise InputError(f"--{name}={url}: {scheme}:// is read for files of JSON Lines only; use s3://, gs:// or a path")
    path = fetched(url)
    _names[str(path)] = url
    return str(path)


def fetched(url: str) -> Path:
    """A local copy of an object, or of all objects below a URL, as a folder.

    Raises:
      InputError: there is nothing, or it cannot be fetched.
    """
    found = object_storage.find(url)
    if not found:
        raise InputError(f"{url}: there is nothing; check the name")
    place = _place("read", url)
    version = hashlib.sha256(repr([(one.url, one.version) for one in found]).encode()).hexdigest()[:16]
    target = place / version / _last(url)
    with _alone(place):
        for old in place.iterdir():
            if old.name not in (version, "lock"):
                shutil.rmtree(old)  # of what lay there before
        for one in found:
            path = target if one.url == url else target / object_storage.inside(one.url, url)
            if not path.exists():
                object_storage.fetch(one, path)
    return target


def _begin(place: Path, url: str, folder: bool, stack: contextlib.ExitStack) -> None:
    """Makes the local place what is at the URL, so that the command treats it as what exists there."""
    stack.enter_context(_alone(place.parent.parent))
    shutil.rmtree(place.parent, ignore_errors=True)
    place.parent.mkdir()
    found = object_storage.find(url)
    if found and folder:
        raise InputError(f"{url}: exists already, and folders in a store are not replaced; choose another target or remove it")
    if found:
        object_storage.fetch(found[0], place)


def _judged(place: Path, url: str, flag_values: flags.FlagValues, stack: contextlib.ExitStack) -> None:
    from judgelm_jax.judging.mirror import mirrored

    if flag_values["shard"].value != "0/1":
        raise InputError(f"--output={url}: one process writes it; leave --shard out, or give each part a file of its own")
    stack.enter_context(_alone(place.parent.parent))
    stack.enter_context(mirrored(url, place))


def _trained(place: Path, url: str, stack: contextlib.ExitStack) -> None:
    from judgelm_jax.training.mirror import mirrored

    stack.enter_context(_alone(place.parent.parent))
    stack.enter_context(mirrored(url, place))


def _put(path: Path, url: str) -> None:
    """A file, or a folder: its largest files first, and what tells that it is whole last."""
    if path.is_file():
        object_storage.put(path, url)
        path.unlink()
        return
    object_storage.put_folder(path, url, {"_CHECKPOINT_METADATA", "config.json"})
    shutil.rmtree(path)


def _last(url: str) -> str:
    name = url.rstrip("/").rpartition("/")[2]
    if name in ("", ".", "..") or url.rstrip("/").count("/") < 3:
        raise InputError(f"{url}: names no object in a bucket; add its name")
    return name


def _place(use: str, url: str) -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = base / "judgelm_jax/objects" / use / hashlib.sha256(url.encode()).hexdigest()[:16]
    place.mkdir(parents=True, exist_ok=True)
    return place


@contextlib.contextmanager
def _alone(place: Path) -> Iterator[None]:
    """One process of this machine at a time."""
    with (place / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
