"""Runs whose model is stubbed, on a disk that dies when it is told to."""

import contextlib
import dataclasses
import io
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from judgelm_jax.judging import manifest, output
from judgelm_jax.records.json_lines import dump_line

RECORDS = 7
TEXTS = ("plain", "zwei\nZeilen\tund\r", "日本語 🚀", "\u2028\u0085", "", '{"a": 1}\\', "\ud800 alone")
FINGERPRINT = {"model": "abc", "mode": "scores", "temperature": 0.0, "limit": None}


class Killed(BaseException):
    """What a kill looks like from inside: no handler of `Exception` sees it, and nothing done after it reaches the disk."""


@dataclasses.dataclass
class Disk:
    """Counts what changes files and fails at operation `at`; a write leaves its first `torn` bytes behind.

    `error` None: the process is killed. Else the operation raises this errno and the process goes on.
    """

    at: int | None = None
    torn: int = 0
    error: int | None = None
    dead: bool = False
    operations: list[tuple[str, int]] = dataclasses.field(default_factory=list)  # name, bytes

    def allows(self, name: str, size: int = 0) -> bool:
        """Whether the operation takes place; a dead process's do not."""
        if self.dead:
            return False
        if self.fails_next():
            self.fail(name, size)
        self.operations.append((name, size))
        return True

    def fails_next(self) -> bool:
        return not self.dead and len(self.operations) == self.at

    def fail(self, name: str, size: int) -> None:
        self.operations.append((name, size))
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        self.dead = True
        raise Killed

    @contextlib.contextmanager
    def in_use(self) -> Iterator["Disk"]:
        real_open, real_os_open = io.open, os.open
        disk = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                if disk.fails_next():
                    super().write(bytes(data)[: disk.torn])
                    disk.fail("write", len(data))
                return super().write(data) if disk.allows("write", len(data)) else len(data)

            def truncate(self, size: int | None = None) -> int:
                return super().truncate(size) if disk.allows("truncate") else 0

        def open_file(path, mode="r", buffering=-1, encoding=None, errors=None, newline=None):
            if not set(mode) & set("wa"):
                return real_open(path, mode, buffering, encoding, errors, newline)
            if not disk.allows("open"):
                raise Killed
            raw = File(path, mode.replace("b", ""))
            if buffering == 0:
                return raw
            buffered = io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        def open_descriptor(path, flags, *rest, **named):
            if flags & os.O_CREAT and not disk.allows("touch"):
                raise Killed
            return real_os_open(path, flags, *rest, **named)

        def guarded(name: str) -> Callable[..., Any]:
            real = getattr(os, name)
            return lambda *rest, **named: real(*rest, **named) if disk.allows(name) else None

        with contextlib.ExitStack() as stack:
            for name in ("unlink", "rmdir", "mkdir", "replace"):
                stack.enter_context(mock.patch.object(os, name, guarded(name)))
            stack.enter_context(mock.patch.object(os, "fsync", lambda file: disk.allows("fsync")))  # noqa: PT008
            stack.enter_context(mock.patch.object(os, "open", open_descriptor))
            stack.enter_context(mock.patch.object(io, "open", open_file))
            yield self


def row(index: int) -> dict[str, Any]:
    return {"question_id": index, "text": TEXTS[index % len(TEXTS)], "scores": [index, 0.5]}


def complete(records: int = RECORDS) -> bytes:
    """What an uninterrupted run must write."""
    return "".join(dump_line(row(index)) + "\n" for index in range(records)).encode()


def work(
    target: Path,
    part: int = 0,
    parts: int = 1,
    *,
    resume: bool = True,
    records: int = RECORDS,
    fingerprint: dict[str, Any] = FINGERPRINT,
    disk: Disk | None = None,
) -> list[int]:
    """One process of a run, judging in an order of its own; returns the records whose judgment it was told is written."""
    written: list[int] = []
    with (disk or Disk()).in_use(), contextlib.suppress(Killed):
        if output.is_complete(target, resume):
            output.discard_leftovers(target)
            return written
        with output.open_shard(target, fingerprint, records, part, parts, resume) as shard:
            if shard is None:
                return written
            own = list(range(part, records, parts))
            random.Random(part).shuffle(own)
            for index in own:
                if not shard.done[index]:
                    shard.write(index, row(index))
                    written.append(index)
            shard.finish()
    return written


def check_finished(target: Path, records: int = RECORDS) -> None:
    assert target.read_bytes() == complete(records)
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name, f"{target.name}.manifest.json"]
    assert manifest.differences(manifest.beside(target), manifest.make(FINGERPRINT, records, 1), ("records",)) == []


@contextlib.contextmanager
def fresh_target() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "judgments.jsonl"


def operations_of(processes: Sequence[tuple[int, int]]) -> list[list[tuple[str, int]]]:
    """What each of these processes (part, parts) does to the disk when nothing fails."""
    disks = [Disk() for _ in processes]
    with fresh_target() as target:
        for (part, parts), disk in zip(processes, disks, strict=True):
            work(target, part, parts, resume=False, disk=disk)
        check_finished(target)
    return [disk.operations for disk in disks]


def last_replace(operations: Sequence[tuple[str, int]]) -> int:
    """The operation by which OUTPUT appears."""
    return max(at for at, (name, _) in enumerate(operations) if name == "replace")


def shard_path(target: Path, part: int = 0, parts: int = 1) -> Path:
    return output.partial_folder(target) / f"shard-{part:05d}-of-{parts:05d}.jsonl"


def shard_lines(target: Path) -> list[int]:
    """The records whose judgment is in the shard as a whole line."""
    if not shard_path(target).exists():
        return []
    return [int(line.partition(b"\t")[0]) for line in shard_path(target).read_bytes().splitlines(True) if line.endswith(b"\n")]


def begin(target: Path, count: int, part: int = 0, parts: int = 1, **settings: Any) -> None:
    """A process that is stopped after `count` judgments."""
    with output.open_shard(target, FINGERPRINT, settings.get("records", RECORDS), part, parts, True) as shard:
        assert shard is not None
        for index in range(part, part + count * parts, parts):
            shard.write(index, row(index))
