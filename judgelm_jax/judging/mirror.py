"""A judging run whose output lies in an object store, where nothing can be appended to or renamed.

The run works in a local folder as any other does. What it has written of judgments is copied every few seconds, as one more
object below OUTPUT.partial/ whose name says at which byte of the shard it begins; an object appears whole or not at all. At the
end OUTPUT itself is put, in one piece, and the pieces go. A run that goes on begins with what the store has, whatever is left
on this machine, so that any machine can go on, and at most the last few seconds are judged again.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from judgelm_jax.judging import manifest
from judgelm_jax.judging.output import partial_folder
from judgelm_jax.storage import object_storage
from judgelm_jax.storage.copying import kept_up_to_date

SECONDS = 5.0  # between two copies
_SHARD = "shard-00000-of-00001.jsonl"
_MANIFEST = "manifest.json"


@contextlib.contextmanager
def mirrored(url: str, output: Path) -> Iterator[None]:
    """Runs a block that judges to `output`, a file in a folder of its own here, and keeps `url` up to date with it.

    Raises:
      InputError: the store cannot be reached, or another process judges to the same URL.
    """
    _restore(url, output)
    copies = _Copies(url, output)
    with kept_up_to_date(copies.bring_up_to_date, SECONDS):
        yield
    if output.exists():
        _publish(url, output)


def _restore(url: str, output: Path) -> None:
    """Makes the local folder what the store has."""
    shutil.rmtree(output.parent, ignore_errors=True)
    output.parent.mkdir(parents=True)
    complete = object_storage.find(url)
    if [one.url for one in complete] == [url]:
        object_storage.fetch(complete[0], output)
        for one in object_storage.find(f"{url}.manifest.json"):
            object_storage.fetch(one, manifest.beside(output))
        return
    pieces = {one.url.rpartition("/")[2]: one for one in object_storage.find(f"{url}.partial")}
    if _MANIFEST not in pieces:
        return
    folder = partial_folder(output)
    object_storage.fetch(pieces.pop(_MANIFEST), folder / _MANIFEST)
    with (folder / _SHARD).open("wb") as shard:
        for name in sorted(pieces):
            if name != _piece(shard.tell()):  # what follows a gap is judged again
                break
            shard.write(object_storage.read(pieces.pop(name)))
    object_storage.remove(list(pieces.values()))


def _publish(url: str, output: Path) -> None:
    beside = manifest.beside(output)
    if not object_storage.find(url):
        if beside.exists():
            object_storage.put(beside, f"{url}.manifest.json")
        object_storage.put(output, url)
    # The manifest goes last: pieces without one are of nobody.
    object_storage.remove(sorted(object_storage.find(f"{url}.partial"), key=lambda one: one.url.endswith(f"/{_MANIFEST}")))


def _piece(offset: int) -> str:
    return f"judgments-{offset:015d}.jsonl"


class _Copies:
    """How much of the shard is in the store."""

    def __init__(self, url: str, output: Path):
        self._url, self._folder = url, partial_folder(output)
        shard = self._folder / _SHARD
        self._copied = shard.stat().st_size if shard.exists() else 0
        self._claimed = self._copied > 0 or (self._folder / _MANIFEST).exists()

    def bring_up_to_date(self) -> None:
        """Copies the whole lines that are not in the store. Raises as `object_storage.create`."""
        try:
            if not self._claimed:
                content = (self._folder / _MANIFEST).read_bytes()
                object_storage.create(content, f"{self._url}.partial/{_MANIFEST}")
                self._claimed = True
            with (self._folder / _SHARD).open("rb") as shard:
                shard.seek(self._copied)
                more = shard.read()
        except FileNotFoundError:  # not begun, or joined already
            return
        more = more[: more.rfind(b"\n") + 1]
        if more:
            object_storage.create(more, f"{self._url}.partial/{_piece(self._copied)}")
            self._copied += len(more)
