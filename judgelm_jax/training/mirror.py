"""A training run whose output lies in an object store, where nothing can be appended to or renamed.

The run works in a local folder as any other does. Twice a minute what changed of its journal is copied, and each checkpoint
that Orbax has finished, the file that makes it one last; checkpoints that the run no longer keeps go. What it leaves is put at
the end. A run that goes on begins with what the store has, whatever is left on this machine, so that any machine can go on.
Imports no JAX.
"""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from judgelm_jax.storage import object_storage
from judgelm_jax.storage.copying import kept_up_to_date
from judgelm_jax.training.identity import ADAPTER_FOLDER, CHECKPOINTS, LOCK, MODEL_FOLDER

SECONDS = 30.0  # between two copies
METADATA_FILE = "_CHECKPOINT_METADATA"  # Orbax's
_LEFT = (MODEL_FOLDER, ADAPTER_FOLDER)
_LAST = {METADATA_FILE, "config.json", "adapter_config.json"}  # what makes a folder a checkpoint


@contextlib.contextmanager
def mirrored(url: str, run: Path) -> Iterator[None]:
    """Runs a block that trains into `run`, a folder of its own here, and keeps `url` up to date with it.

    A run that is written by another process, too, is asked to stop.

    Raises:
      InputError: the store cannot be reached, or another process trains into the same URL.
    """
    url = url.rstrip("/")
    _restore(url, run)
    copies = _Copies(url, run)
    with kept_up_to_date(copies.bring_up_to_date, SECONDS, taken=lambda: os.kill(os.getpid(), signal.SIGTERM)):
        yield
    for name in _LEFT:
        if (run / name).is_dir():
            object_storage.put_folder(run / name, f"{url}/{name}", _LAST)


def _restore(url: str, run: Path) -> None:
    """Makes the local folder what the store has; halves of checkpoints go."""
    shutil.rmtree(run.parent, ignore_errors=True)
    run.parent.mkdir(parents=True)
    found = {tuple(one.url[len(url) + 1 :].split("/")): one for one in object_storage.find(url)}
    whole = {path[:2] for path in found if path[0] == CHECKPOINTS and path[-1] == METADATA_FILE and len(path) == 3}
    for path, one in found.items():
        if path[0] in _LEFT:
            continue
        if path[0] == CHECKPOINTS and path[:2] not in whole:
            object_storage.remove([one])
        else:
            object_storage.fetch(one, run / object_storage.inside(one.url, url))


class _Copies:
    """What of the run is in the store."""

    def __init__(self, url: str, run: Path):
        self._url, self._run = url, run
        self._copied = {path: _version(path) for path in self._journal()}
        self._whole = set(self._finished())  # steps
        self._begun = set(self._whole)

    def bring_up_to_date(self) -> None:
        """Copies what is new. Raises as `object_storage.create`."""
        finished = self._finished()  # the journal has all of their steps
        for path in self._journal():
            with contextlib.suppress(FileNotFoundError):
                version = _version(path)
                if self._copied.get(path) != version:
                    object_storage.put(path, f"{self._url}/{path.relative_to(self._run).as_posix()}")
                    self._copied[path] = version
        for step in finished:
            if step not in self._whole:
                self._begun.add(step)
                with contextlib.suppress(FileNotFoundError):  # no longer kept
                    self._put_checkpoint(step)
                    self._whole.add(step)
        for step in self._begun - set(self._finished()):
            below = object_storage.find(f"{self._url}/{CHECKPOINTS}/{step}")
            object_storage.remove(sorted(below, key=lambda one: not one.url.endswith(f"{step}/{METADATA_FILE}")))
            self._begun.discard(step)
            self._whole.discard(step)

    def _put_checkpoint(self, step: str) -> None:
        folder, url = self._run / CHECKPOINTS / step, f"{self._url}/{CHECKPOINTS}/{step}"
        mark = (folder / METADATA_FILE).read_bytes()  # with the time: no other run writes the same
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / METADATA_FILE):
            object_storage.put(file, f"{url}/{file.relative_to(folder).as_posix()}")
        object_storage.create(mark, f"{url}/{METADATA_FILE}")

    def _finished(self) -> list[str]:
        """The steps that are saved whole here, in order: Orbax renames a folder when it is."""
        folder = self._run / CHECKPOINTS
        steps = [path.name for path in folder.glob("*") if path.name.isdigit() and (path / METADATA_FILE).is_file()]
        return sorted(steps, key=int)

    def _journal(self) -> list[Path]:
        """The files beside checkpoints and what the run leaves."""
        if not self._run.is_dir():
            return []
        tops = [path for path in self._run.iterdir() if path.name not in {CHECKPOINTS, LOCK, *_LEFT}]
        return [file for top in tops for file in (top, *top.rglob("*")) if file.is_file()]


def _version(path: Path) -> tuple[int, int]:
    told = path.stat()
    return told.st_mtime_ns, told.st_size
