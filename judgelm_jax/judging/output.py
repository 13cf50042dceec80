"""Where judgments are kept until all are there: OUTPUT.partial/ with a manifest and one shard a process.

```
OUTPUT.partial/
  lock                          held while a shard is opened or completed, and while the shards are joined
  manifest.json                 the fingerprint of the run and the number of its records and shards
  shard-00000-of-00002.jsonl    lines `INDEX<tab>JUDGMENT`, in the order in which they were done; locked by its process
  shard-00000-of-00002.done     exists when the shard holds all of its records
  joined.jsonl                  the beginning of OUTPUT, while the shards are joined
  state.json                    how far each shard is, for `judgelm-status`
```
A line counts when its newline is there and it reads as what it should be; everything behind the first line that does not is
cut off when the run goes on. The shard that is complete last joins all shards, in input order, into OUTPUT, which appears at
once, a moment after OUTPUT.manifest.json, which stays beside it. The folder is removed file by file, the manifest last, so
that no judgment ever lies beside the manifest of another run.
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from judgelm_jax.errors import InputError
from judgelm_jax.judging import manifest
from judgelm_jax.records.json_lines import Record, dump_line


def partial_folder(output: Path) -> Path:
    """The folder in which the work on `output` is kept."""
    return output.with_name(output.name + ".partial")


def is_complete(output: Path, resume: bool) -> bool:
    """Whether OUTPUT exists and nothing remains to be done.

    Raises:
      InputError: it exists and `resume` was not asked for, or it is no file.
    """
    if not os.path.lexists(output):
        return False
    if not output.is_file():
        raise InputError(f"{output}: is not a file; choose another --output")
    if not resume:
        raise InputError(f"{output}: exists already; choose another --output, or move it away")
    return True


def refuse_other_settings(output: Path, fingerprint: dict[str, Any], records: int) -> bool:
    """Compares a complete OUTPUT with the run that would make it now; whether it has a manifest to compare.

    Raises:
      InputError: it was made with another model, other settings or other records; says which.
    """
    path = manifest.beside(output)
    if not path.exists():
        return False
    wanted = manifest.make(fingerprint, records, shards=1)
    differing = manifest.differences(path, wanted, ("version", "records"))  # the number of shards leaves no trace
    if differing:
        raise InputError(
            f"{output}: is complete and of another run: {'; '.join(differing)}; choose another --output, or move it away"
        )
    return True


def discard_leftovers(output: Path) -> None:
    """Removes the folder of a run whose OUTPUT is complete (a kill may have come between the two).

    Raises:
      InputError: the folder holds judgments of a run that is not complete, so OUTPUT is not its result.
    """
    folder = partial_folder(output)
    if not folder.exists():
        return
    with _locked(folder) as exists:
        if not exists:
            return
        shards = [path for path in folder.glob("shard-*.jsonl") if path.stat().st_size]
        if shards:
            parts = int(shards[0].stem.rpartition("-")[2])
            if not all(_marker(folder, part, parts).exists() for part in range(parts)):
                raise InputError(f"{output}: exists, and {folder} holds an unfinished run; move one of the two away")
        _remove(folder)


class Shard:
    """One process's part of an unfinished output. Open it with `open_shard`."""

    def __init__(self, output: Path, part: int, own: manifest.Manifest, file: BinaryIO, done: bytearray, end: int):
        self.done = done  # one byte a record of the whole input: 1 where its judgment is written
        self.folder: Path | None = partial_folder(output)
        self._output, self._folder, self._part, self._parts = output, partial_folder(output), part, own["shards"]
        self._manifest = own
        self._file, self._end = file, end  # the file is unbuffered: what is written is with the system

    def write(self, index: int, row: Record) -> None:
        """Appends the judgment of the record with this index, and hands it to the system.

        Raises:
          InputError: the disk is full or broken. What was written before stays whole.
        """
        line = memoryview(f"{index}\t{dump_line(row)}\n".encode())
        rest = line
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):  # a full disk may hold a part of the line
                self._file.truncate(self._end)
            raise _failed(self._folder, error) from error
        self._end += len(line)
        self.done[index] = 1

    def remaining(self) -> int:
        """How many records of this part have no judgment yet."""
        return len(range(self._part, len(self.done), self._parts)) - sum(self.done[self._part :: self._parts])

    def finish(self) -> bool:
        """Marks this part as complete and joins all parts if none is missing; returns whether OUTPUT is there now.

        Raises:
          InputError: the disk is full, or somebody removed the folder or made OUTPUT meanwhile.
        """
        try:
            os.fsync(self._file.fileno())
            with _locked(self._folder) as exists:
                if not (exists and self._is_mine()):
                    if self._output.exists():  # this part was complete before, and another process joined all
                        return True
                    raise InputError(f"{self._folder}: was removed while this run wrote to it; run again")
                marker = _marker(self._folder, self._part, self._parts)
                marker.touch()
                if not all(_marker(self._folder, part, self._parts).exists() for part in range(self._parts)):
                    return False
                if os.path.lexists(self._output):
                    raise InputError(f"{self._output}: appeared during the run; move it away and go on with --resume")
                _join(self._output, self._folder, self._parts, len(self.done), self._manifest)
                _remove(self._folder)
        except OSError as error:
            raise _failed(self._folder, error) from error
        return True

    def rows(self) -> Iterator[Record]:
        """The judgments that this part has so far."""
        with _shard_path(self._folder, self._part, self._parts).open("rb") as file:
            for line in file:
                yield json.loads(line.partition(b"\t")[2])

    def close(self) -> None:
        """Closes the file. A shard that was opened in vain leaves nothing behind."""
        with self._file, contextlib.suppress(OSError):
            if not any(self.done):
                with _locked(self._folder) as exists:
                    if exists and self._is_mine() and not _marker(self._folder, self._part, self._parts).exists():
                        _shard_path(self._folder, self._part, self._parts).unlink()
                        if not any(self._folder.glob("shard-*")):
                            _remove(self._folder)

    def _is_mine(self) -> bool:
        return _is_at(self._file, _shard_path(self._folder, self._part, self._parts))


@contextlib.contextmanager
def open_shard(
    output: Path, fingerprint: dict[str, Any], records: int, part: int, parts: int, resume: bool
) -> Iterator[Shard | None]:
    """Opens part `part` of `parts` of the work on `output`, with what earlier runs wrote.

    Gives None where another process completed OUTPUT since `is_complete` was asked.

    Args:
      fingerprint: what the judgments depend on, by name; a run that goes on must have the same.
      records: how many records the input has; part p holds those whose index is p modulo `parts`.
      resume: whether work that was begun may go on.

    Raises:
      InputError: there is work and `resume` is not set, or it was begun with another fingerprint, or another process
        writes the same part.
    """
    folder = partial_folder(output)
    own = manifest.make(fingerprint, records, parts)
    shard = None
    with _locked(folder, create=True):
        if is_complete(output, resume):
            if not any(folder.glob("shard-*")):
                _remove(folder)
        else:
            _claim(folder, own)
            shard = _open(output, part, own, resume)
    if shard is None:
        yield None
        return
    with contextlib.closing(shard):
        yield shard


def _open(output: Path, part: int, own: manifest.Manifest, resume: bool) -> Shard:
    folder, records, parts = partial_folder(output), own["records"], own["shards"]
    path = _shard_path(folder, part, parts)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("a+b", buffering=0))
        try:
            _lock(file, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{path}: another process writes it; wait for it to end, or stop it") from error
        if path.stat().st_size and not resume:
            raise InputError(f"{folder}: holds an unfinished run; pass --resume to go on with it, or remove the folder")
        done, end = _recover(path, records, part, parts)
        file.truncate(end)
        shard = Shard(output, part, own, file, done, end)
        if shard.remaining():  # a shard that was damaged after it was complete
            _marker(folder, part, parts).unlink(missing_ok=True)
        stack.pop_all()
        return shard


def _shard_path(folder: Path, part: int, parts: int) -> Path:
    return folder / f"shard-{part:05d}-of-{parts:05d}.jsonl"


def _marker(folder: Path, part: int, parts: int) -> Path:
    return _shard_path(folder, part, parts).with_suffix(".done")


def _claim(folder: Path, wanted: manifest.Manifest) -> None:
    """Makes the folder that of this run, or refuses where it is another's."""
    path = _manifest_path(folder)
    if path.exists():
        _refuse_another(folder, path, wanted)
    elif any(shard.stat().st_size for shard in folder.glob("shard-*.jsonl")):
        raise InputError(f"{folder}: holds judgments and no manifest.json; remove the folder to start anew")
    else:
        try:
            manifest.write(path, wanted, folder / "manifest.tmp")
        except OSError as error:
            raise _failed(folder, error) from error


def _refuse_another(folder: Path, path: Path, wanted: manifest.Manifest) -> None:
    differing = manifest.differences(path, wanted)
    if differing:
        raise InputError(
            f"{folder}: is of another run: {'; '.join(differing)}; run with the same settings to go on, or remove the folder "
            "(or choose another --output) to start anew"
        )


def _manifest_path(folder: Path) -> Path:
    return folder / "manifest.json"


def _recover(path: Path, records: int, part: int, parts: int) -> tuple[bytearray, int]:
    """Reads which records are done, and where the last whole line ends (a kill may have left a torn one)."""
    done = bytearray(records)
    end = 0
    with path.open("rb") as file:
        for line in file:
            index = _index(line)
            if index is None or not 0 <= index < records or index % parts != part or done[index]:
                break
            done[index] = 1
            end += len(line)
    return done, end


def _index(line: bytes) -> int | None:
    """The index of a whole line; None of a torn one."""
    number, tab, row = line.partition(b"\t")
    if not (tab and line.endswith(b"\n") and number.isdigit()):
        return None
    try:
        return int(number) if isinstance(json.loads(row), dict) else None
    except (ValueError, RecursionError):
        return None


def _join(output: Path, folder: Path, parts: int, records: int, own: manifest.Manifest) -> None:
    joined = folder / "joined.jsonl"
    try:
        with joined.open("wb") as file:
            file.writelines(_in_input_order(folder, parts, records))
            file.flush()
            os.fsync(file.fileno())
        manifest.write(manifest.beside(output), own, folder / "manifest.tmp")
        os.replace(joined, output)
    except OSError:
        with contextlib.suppress(OSError):  # gives a full disk its room back
            joined.unlink(missing_ok=True)
        raise


def _in_input_order(folder: Path, parts: int, records: int) -> Iterator[bytes]:
    """The lines of OUTPUT. In memory are only those that a shard has ahead of their turn: about a window's."""
    with contextlib.ExitStack() as stack:
        paths = [_shard_path(folder, part, parts) for part in range(parts)]
        files = [stack.enter_context(path.open("rb")) for path in paths]
        ahead: dict[int, bytes] = {}
        for index in range(records):
            part = index % parts
            while index not in ahead:
                number, _, row = next(files[part], b"").partition(b"\t")
                if not (number.isdigit() and len(number) < 20 and row.startswith(b"{") and row.endswith(b"}\n")):
                    raise InputError(
                        f"{paths[part]}: was damaged after it was complete; run --shard={part}/{parts} again with --resume"
                    )
                ahead[int(number)] = row
            yield ahead.pop(index)


def _remove(folder: Path) -> None:
    """Removes what this module wrote, judgments first and the manifest late, and the folder if nothing else is in it."""
    with contextlib.suppress(OSError):
        for pattern in ("shard-*.jsonl", "shard-*.done", "joined.jsonl", "state.*", "manifest.tmp", "manifest.json", "lock"):
            for path in folder.glob(pattern):
                path.unlink()
        folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path, create: bool = False) -> Iterator[bool]:
    """Locks the folder; gives whether it exists (always with `create`, which makes it)."""
    path = folder / "lock"
    while True:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("a")
        except FileNotFoundError:
            if create:
                continue
            yield False
            return
        with file:
            _lock(file, path, fcntl.LOCK_EX)
            if _is_at(file, path):  # else it was removed while we waited
                yield True
                return


def _lock(file: IO[Any], path: Path, mode: int) -> None:
    try:
        fcntl.flock(file, mode)
    except OSError as error:
        error.filename = str(path)
        raise


def _is_at(file: IO[Any], path: Path) -> bool:
    """Whether `path` is still the name of the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _failed(folder: Path, error: OSError) -> InputError:
    """What to say when the disk is full (or a quota is used up, or the disk breaks)."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "the disk is full" if full else error.strerror or str(error)
    return InputError(
        f"{folder}: {reason}; what was written is kept: {'free space' if full else 'fix it'} and go on with --resume"
    )
