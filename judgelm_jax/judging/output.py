"""Where judgments are kept until all are there: OUTPUT.partial/ with a manifest and one shard a process.

```
OUTPUT.partial/
  manifest.json                 the fingerprint of the run and the number of its records and shards
  shard-00000-of-00002.jsonl    lines `INDEX<tab>JUDGMENT`, in the order in which they were done
  shard-00000-of-00002.done     stands there when the shard holds all of its records
```
A line counts when its newline is there and it reads as what it should be; everything behind the first line that does not is
cut off when the run goes on. The shard that is complete last joins all shards, in input order, into OUTPUT, which appears at
once.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from judgelm_jax.errors import InputError
from judgelm_jax.records import Record, dump_line, write_atomically

_VERSION = 1


def partial_folder(output: Path) -> Path:
    """The folder in which the work on `output` is kept."""
    return output.with_name(output.name + ".partial")


def is_complete(output: Path, resume: bool) -> bool:
    """Whether OUTPUT stands there and nothing remains to be done.

    Raises:
      InputError: it stands there and `resume` was not asked for, or it is no file.
    """
    if not os.path.lexists(output):
        return False
    if not output.is_file():
        raise InputError(f"{output}: is not a file; choose another --output")
    if not resume:
        raise InputError(f"{output}: stands there already; choose another --output, or move it away")
    return True


class Shard:
    """One process's part of an unfinished output. Open it with `open_shard`."""

    def __init__(self, output: Path, folder: Path, part: int, parts: int, file: BinaryIO, done: bytearray):
        self._output, self._folder, self._part, self._parts, self._file = output, folder, part, parts, file
        self.done = done  # one byte a record of the whole input: 1 where its judgment is written

    def write(self, rows: list[tuple[int, Record]]) -> None:
        """Appends judgments with the index of their record, and hands them to the system."""
        lines = "".join(f"{index}\t{dump_line(row)}\n" for index, row in rows).encode()
        end = self._file.tell()
        try:
            self._file.write(lines)
            self._file.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # a full disk may hold a part of the lines: what was whole stays
                os.ftruncate(self._file.fileno(), end)
            error.filename = str(self._folder)
            raise
        for index, _ in rows:
            self.done[index] = 1

    def remaining(self) -> int:
        """How many records of this part have no judgment yet."""
        return len(range(self._part, len(self.done), self._parts)) - sum(self.done[self._part :: self._parts])

    def finish(self) -> bool:
        """Marks this part as complete and joins all parts if none is missing; returns whether OUTPUT is there now."""
        os.fsync(self._file.fileno())
        _marker(self._folder, self._part, self._parts).touch()
        with _locked(self._folder) as unlocked:
            if not unlocked or not all(_marker(self._folder, part, self._parts).exists() for part in range(self._parts)):
                return self._output.exists()
            with write_atomically(self._output) as file:
                for line in _joined(self._folder, self._parts, len(self.done)):
                    file.write(line)
            # From here on a kill leaves a complete OUTPUT and a folder that the next run removes.
            shutil.rmtree(self._folder, ignore_errors=True)
        return True

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def open_shard(output: Path, fingerprint: dict[str, Any], records: int, part: int, parts: int, resume: bool) -> Iterator[Shard]:
    """Opens part `part` of `parts` of the work on `output`, with what earlier runs wrote.

    Args:
      fingerprint: what the judgments depend on, by name; a run that goes on must have the same.
      records: how many records the input has; part p holds those whose index is p modulo `parts`.
      resume: whether work that was begun may go on.

    Raises:
      InputError: there is work and `resume` is not set, or it was begun with another fingerprint, or another process
        writes the same part.
    """
    folder = partial_folder(output)
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"version": _VERSION, "records": records, "shards": parts, "fingerprint": fingerprint}
    path = _shard_path(folder, part, parts)
    begun = path.exists() and path.stat().st_size > 0
    _check_manifest(folder / "manifest.json", manifest, output)
    if begun and not resume:
        raise InputError(f"{folder}: holds an unfinished run; pass --resume to go on with it, or remove the folder")
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{path}: another process writes it; wait for it to end, or stop it") from error
        shard = Shard(output, folder, part, parts, file, _recover(file, records, part, parts))
        try:
            yield shard
        finally:
            with contextlib.suppress(OSError):
                shard.close()
            if folder.exists() and not any(shard.done):
                _forget(path)


def _forget(path: Path) -> None:
    """Removes a shard to which nothing was written, and the folder when nothing else is in it."""
    path.unlink(missing_ok=True)
    if not any(path.parent.glob("shard-*")):
        shutil.rmtree(path.parent, ignore_errors=True)


def discard_leftovers(output: Path) -> None:
    """Removes the folder of a run whose OUTPUT is complete (a kill may have come between the two)."""
    shutil.rmtree(partial_folder(output), ignore_errors=True)


def _shard_path(folder: Path, part: int, parts: int) -> Path:
    return folder / f"shard-{part:05d}-of-{parts:05d}.jsonl"


def _marker(folder: Path, part: int, parts: int) -> Path:
    return _shard_path(folder, part, parts).with_suffix(".done")


def _check_manifest(path: Path, manifest: dict[str, Any], output: Path) -> None:
    """Writes the manifest, or compares with the one that is there."""
    if not path.exists():
        temporary = path.with_name(f".manifest.{os.getpid()}.tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(manifest, file, indent=1, sort_keys=True)
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):  # another process of the same run was faster
                os.link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = _differences(found, manifest)
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: is damaged; remove the folder {path.parent} to start anew") from error
    if differing:
        raise InputError(
            f"{path.parent}: was begun with another {', '.join(differing)}; run with the same settings to go on, or remove "
            f"the folder (or choose another --output) to start anew"
        )


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    names = [name for name in ("version", "records", "shards") if found.get(name) != wanted[name]]
    prints = found["fingerprint"], wanted["fingerprint"]
    names += sorted(name for name in prints[0] | prints[1] if prints[0].get(name) != prints[1].get(name))
    return names


def _recover(file: BinaryIO, records: int, part: int, parts: int) -> bytearray:
    """Reads which records are done and cuts off what a kill left behind them."""
    done = bytearray(records)
    end = 0
    file.seek(0)
    for line in file:
        index = _index(line)
        if index is None or not 0 <= index < records or index % parts != part or done[index]:
            break
        done[index] = 1
        end += len(line)
    file.truncate(end)
    file.seek(end)
    return done


def _index(line: bytes) -> int | None:
    """The index of a whole line; None of a torn one."""
    number, tab, row = line.partition(b"\t")
    if not (tab and line.endswith(b"\n") and number.isdigit()):
        return None
    try:
        return int(number) if isinstance(json.loads(row), dict) else None
    except ValueError:
        return None


def _joined(folder: Path, parts: int, records: int) -> Iterator[str]:
    """The judgments in input order. Holds only those that a shard has ahead of its turn: a window's, at most."""
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(_shard_path(folder, part, parts).open(encoding="utf-8", newline="\n")) for part in range(parts)
        ]
        ahead: dict[int, str] = {}
        for index in range(records):
            while index not in ahead:
                number, tab, row = next(files[index % parts], "").partition("\t")
                if not tab:
                    raise InputError(f"{folder}: the judgment of record {index} is missing; run again with --resume")
                ahead[int(number)] = row
            yield ahead.pop(index)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Holds the lock of the folder; false where the folder is gone because another process joined the shards."""
    try:
        file = (folder / "lock").open("a")
    except FileNotFoundError:
        yield False
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield folder.exists()
