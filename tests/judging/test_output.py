"""What a run makes of files that exist already, of other processes and of damaged files."""

import contextlib
import errno
import fcntl
import io
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from judging.stubbed_run import (
    FINGERPRINT,
    RECORDS,
    Disk,
    begin,
    check_finished,
    complete,
    last_replace,
    operations_of,
    row,
    shard_path,
    work,
)

from judgelm_jax.errors import InputError
from judgelm_jax.judging import output


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fingerprint": {**FINGERPRINT, "model": "other"}}, "--model holds other weights"),
        (
            {"fingerprint": {**FINGERPRINT, "mode": "explain", "limit": 3}},
            "--limit is 3 and the run began with none; --mode is explain and the run began with scores",
        ),
        ({"fingerprint": {**FINGERPRINT, "new": 1}}, "--new is 1 and the run began with none"),
        ({"fingerprint": {"model": "abc"}}, "--temperature is none and the run began with 0.0"),
        ({"records": RECORDS + 1}, "records: 8 and the run began with 7"),
        ({"parts": 2}, "shards: 2 and the run began with 1"),
    ],
)
def test_a_run_with_other_settings_is_refused_and_told_what_differs(tmp_path, change, named):
    target = tmp_path / "judgments.jsonl"
    begin(target, 3)
    with pytest.raises(InputError, match=f"is of another run: .*{named};"):
        work(target, **change)
    assert len(work(target)) == RECORDS - 3
    check_finished(target)


def test_an_unfinished_run_is_refused_without_resume(tmp_path):
    target = tmp_path / "judgments.jsonl"
    begin(target, 3)
    before = shard_path(target).read_bytes()
    with pytest.raises(InputError, match="pass --resume"):
        work(target, resume=False)
    assert shard_path(target).read_bytes() == before


def test_a_complete_output_says_whether_it_is_that_of_this_run(tmp_path):
    target = tmp_path / "judgments.jsonl"
    for part in (1, 0):
        work(target, part, 2)
    assert output.refuse_other_settings(target, FINGERPRINT, RECORDS)  # in how many shards it was judged changes nothing
    for fingerprint, records, says in (
        ({**FINGERPRINT, "model": "other"}, RECORDS, "--model holds other weights"),
        ({**FINGERPRINT, "mode": "explain"}, RECORDS, "--mode is explain and the run began with scores"),
        (FINGERPRINT, RECORDS + 1, "records: 8"),
    ):
        with pytest.raises(InputError, match=f"judgments.jsonl: is complete and of another run: {says}"):
            output.refuse_other_settings(target, fingerprint, records)
    (tmp_path / "judgments.jsonl.manifest.json").unlink()
    assert not output.refuse_other_settings(target, {"model": "other"}, 1)
    check = complete()
    assert target.read_bytes() == check


def test_an_output_that_stands_there_is_refused_without_resume_and_done_with_it(tmp_path):
    target = tmp_path / "judgments.jsonl"
    target.write_text("precious\n")
    with pytest.raises(InputError, match="exists already"):
        work(target, resume=False)
    assert work(target) == []
    assert target.read_text() == "precious\n"
    assert not output.partial_folder(target).exists()


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_an_output_that_is_no_file_is_refused(tmp_path, make):
    target = tmp_path / "judgments.jsonl"
    make(target)
    with pytest.raises(InputError, match="is not a file"):
        work(target)


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path):
    target = tmp_path / "judgments.jsonl"

    def fail_to_load_the_model() -> None:
        with output.open_shard(target, FINGERPRINT, RECORDS, 0, 1, False):
            raise InputError("no model")

    with pytest.raises(InputError, match="no model"):
        fail_to_load_the_model()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_wrote_nothing_leaves_the_work_of_others(tmp_path):
    target = tmp_path / "judgments.jsonl"
    begin(target, 2, part=1, parts=2)
    begin(target, 0, part=0, parts=2)
    assert not shard_path(target, 0, 2).exists()
    assert len(work(target, 1, 2)) == 1
    work(target, 0, 2)
    check_finished(target)


def test_a_shard_that_another_process_writes_is_refused(tmp_path):
    target = tmp_path / "judgments.jsonl"
    with output.open_shard(target, FINGERPRINT, RECORDS, 0, 1, False) as shard:
        for resume in (False, True):
            with pytest.raises(InputError, match=r"shard-00000-of-00001\.jsonl: another process writes it"):
                work(target, resume=resume)
        for index in range(RECORDS):
            shard.write(index, row(index))
        assert shard.finish()
    check_finished(target)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", "null", '{"version": 1, "records": 7, "shards": 1}', "\x00" * 9, "[" * 9999]
)
def test_a_damaged_manifest_is_refused_and_no_judgment_touched(tmp_path, content):
    target = tmp_path / "judgments.jsonl"
    begin(target, 3)
    before = shard_path(target).read_bytes()
    (output.partial_folder(target) / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json: is damaged, or no manifest"):
        work(target)
    assert shard_path(target).read_bytes() == before


def test_judgments_without_a_manifest_are_never_taken_over(tmp_path):
    target = tmp_path / "judgments.jsonl"
    begin(target, 3)
    (output.partial_folder(target) / "manifest.json").unlink()
    with pytest.raises(InputError, match="holds judgments and no manifest"):
        work(target, fingerprint={"model": "other"})


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: [*lines[:2], lines[2][:9] + lines[3], *lines[4:]],  # torn in the middle, as two disks may do it
        lambda lines: [*lines[:2], b"\x00" * len(lines[2]), *lines[3:]],
        lambda lines: [*lines[:2], b"\n", *lines[2:]],
        lambda lines: [*lines[:2], lines[0], *lines[2:]],  # twice
        lambda lines: [*lines[:2], lines[2].replace(b"2\t", b"7\t"), *lines[3:]],  # no such record
        lambda lines: [*lines[:2], b"-1" + lines[2][1:], *lines[3:]],
        lambda lines: [*lines[:2], b"9" * 5000 + lines[2][1:], *lines[3:]],
        lambda lines: [*lines[:2], b"2\t" + b"[" * 99999 + b"\n", *lines[3:]],
        lambda lines: [*lines[:2], b"2\t\xff\n", *lines[3:]],
        lambda lines: [*lines[:2], lines[2].rstrip(b"\n")],
    ],
)
def test_what_stands_before_a_damaged_line_is_kept_and_the_rest_judged_again(tmp_path, damage):
    target = tmp_path / "judgments.jsonl"
    begin(target, 5)
    lines = shard_path(target).read_bytes().splitlines(True)
    shard_path(target).write_bytes(b"".join(damage(lines)))
    assert sorted(work(target)) == [2, 3, 4, 5, 6]
    check_finished(target)


def test_a_shard_of_another_part_is_not_taken_for_ones_own(tmp_path):
    target = tmp_path / "judgments.jsonl"
    begin(target, 2, part=0, parts=2)
    shutil.copy(shard_path(target, 0, 2), shard_path(target, 1, 2))
    assert sorted(work(target, 1, 2)) == [1, 3, 5]
    work(target, 0, 2)
    check_finished(target)


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-20] + b"\n")])
def test_a_shard_that_is_damaged_after_it_was_complete_is_named_and_heals(tmp_path, damage):
    target = tmp_path / "judgments.jsonl"
    work(target, 0, 2)
    damage(shard_path(target, 0, 2))
    with pytest.raises(InputError):
        work(target, 1, 2)
    assert not target.exists()
    assert work(target, 0, 2)
    work(target, 1, 2)
    check_finished(target)


def test_a_shard_that_heals_is_waited_for(tmp_path):
    target = tmp_path / "judgments.jsonl"
    work(target, 0, 2)
    path = shard_path(target, 0, 2)
    path.write_bytes(path.read_bytes()[:-9])
    with output.open_shard(target, FINGERPRINT, RECORDS, 0, 2, True) as healing:
        with output.open_shard(target, FINGERPRINT, RECORDS, 1, 2, True) as other:
            for index in range(1, RECORDS, 2):
                other.write(index, row(index))
            assert not other.finish()
        for index in range(0, RECORDS, 2):
            if not healing.done[index]:
                healing.write(index, row(index))
        assert healing.finish()
    check_finished(target)


@pytest.mark.parametrize("records", [0, 1, 2])
@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 2, 0, 1, 3)])
def test_there_may_be_more_shards_than_records(tmp_path, records, order):
    target = tmp_path / "judgments.jsonl"
    for part in order:
        assert not target.exists()
        work(target, part, 5, resume=False, records=records)
    check_finished(target, records)


def test_no_records_give_an_empty_output(tmp_path):
    target = tmp_path / "judgments.jsonl"
    work(target, resume=False, records=0)
    assert target.read_bytes() == b""


def test_killed_while_the_folder_is_removed_old_judgments_do_not_enter_a_new_run(tmp_path):
    (operations,) = operations_of([(0, 1)])
    other = {"model": "other"}
    for at in range(last_replace(operations) + 1, len(operations)):
        target = tmp_path / str(at) / "judgments.jsonl"
        target.parent.mkdir()
        work(target, disk=Disk(at))
        assert target.read_bytes() == complete()
        target.unlink()  # as a user does who moves the result away and judges with another model
        try:
            assert len(work(target, fingerprint=other)) == RECORDS
        except InputError as error:
            assert "is of another run" in str(error)  # noqa: PT017


def test_leftovers_of_a_complete_run_are_removed(tmp_path):
    (operations,) = operations_of([(0, 1)])
    target = tmp_path / "judgments.jsonl"
    work(target, disk=Disk(last_replace(operations) + 1))
    assert target.exists()
    assert shard_path(target).exists()
    assert work(target) == []
    check_finished(target)


def test_files_of_others_in_the_folder_stay(tmp_path):
    target = tmp_path / "judgments.jsonl"
    folder = output.partial_folder(target)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    work(target, resume=False)
    assert target.read_bytes() == complete()
    work(target)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_unfinished_work_is_not_removed_because_some_file_is_called_like_the_output(tmp_path):
    target = tmp_path / "judgments.jsonl"
    begin(target, 3)
    target.write_text("another file\n")
    with pytest.raises(InputError, match="holds an unfinished run; move one of the two away"):
        work(target)
    target.unlink()
    assert len(work(target)) == RECORDS - 3
    check_finished(target)


def test_an_output_that_appears_during_the_run_is_not_overwritten(tmp_path):
    target = tmp_path / "judgments.jsonl"

    def run_while_somebody_writes_the_output() -> None:
        with output.open_shard(target, FINGERPRINT, 1, 0, 1, False) as shard:
            shard.write(0, row(0))
            target.write_text("precious\n")
            shard.finish()

    with pytest.raises(InputError, match="appeared during the run"):
        run_while_somebody_writes_the_output()
    assert target.read_text() == "precious\n"
    target.rename(tmp_path / "moved")
    assert work(target, records=1) == []
    assert target.read_bytes() == complete(1)


def test_a_folder_that_is_removed_or_replaced_during_the_run_is_told(tmp_path):
    for replaced in (False, True):
        target = tmp_path / f"{replaced}.jsonl"
        with output.open_shard(target, FINGERPRINT, 1, 0, 1, False) as shard:
            shutil.rmtree(output.partial_folder(target))
            shard.write(0, row(0))
            other = output.open_shard(target, FINGERPRINT, 1, 0, 1, False) if replaced else contextlib.nullcontext()
            with other, pytest.raises(InputError, match="was removed while this run wrote to it"):
                shard.finish()
        assert not target.exists()


def test_a_process_that_finds_all_done_while_another_joins_says_so(tmp_path):
    target = tmp_path / "judgments.jsonl"
    work(target, 0, 2)
    with output.open_shard(target, FINGERPRINT, RECORDS, 0, 2, True) as idle:  # complete before, started again
        work(target, 1, 2)
        assert target.exists()
        assert idle.remaining() == 0
        assert idle.finish()
    check_finished(target)
    with output.open_shard(target, FINGERPRINT, RECORDS, 0, 2, True) as late:  # it had asked `is_complete` before the join
        assert late is None
    check_finished(target)


def test_shards_that_finish_at_the_same_time_are_joined_once(tmp_path):
    for attempt in range(40):
        target = tmp_path / str(attempt) / "judgments.jsonl"
        target.parent.mkdir()
        barrier = threading.Barrier(4)
        results: list[bool] = []

        def process(
            part: int, target: Path = target, barrier: threading.Barrier = barrier, results: list[bool] = results
        ) -> None:
            barrier.wait()
            with output.open_shard(target, FINGERPRINT, RECORDS, part, 4, True) as shard:
                for index in range(part, RECORDS, 4):
                    shard.write(index, row(index))
                barrier.wait()
                results.append(shard.finish())

        threads = [threading.Thread(target=process, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == [False, False, False, True]
        check_finished(target)


def test_the_folder_may_vanish_while_a_process_waits_for_its_lock(tmp_path, monkeypatch):
    target = tmp_path / "judgments.jsonl"
    real, waited = fcntl.flock, []

    def flock(file: Any, mode: int) -> None:
        if not waited:
            waited.append(file)
            begin(target, 0)  # another process, which was first, ends in vain and removes the folder
            assert not output.partial_folder(target).exists()
        real(file, mode)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert len(work(target)) == RECORDS
    check_finished(target)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match=r"judgments\.jsonl\.partial/lock"):
        work(tmp_path / "judgments.jsonl")


def test_a_write_that_the_system_takes_in_pieces_is_whole(tmp_path):
    target = tmp_path / "judgments.jsonl"
    real_open = io.open

    class Slow(io.FileIO):
        def write(self, data: Any) -> int:
            return super().write(bytes(data)[:5])

    def open_file(path, mode="r", buffering=-1, *rest):
        return Slow(path, mode.replace("b", "")) if buffering == 0 else real_open(path, mode, buffering, *rest)

    with mock.patch.object(io, "open", open_file), output.open_shard(target, FINGERPRINT, RECORDS, 0, 1, False) as shard:
        for index in range(RECORDS):
            shard.write(index, row(index))
        assert shard.finish()
    check_finished(target)


def test_the_manifest_tells_what_the_run_is(tmp_path):
    target = tmp_path / "judgments.jsonl"
    begin(target, 1)
    manifest = json.loads((output.partial_folder(target) / "manifest.json").read_text())
    assert manifest == {"version": 1, "records": RECORDS, "shards": 1, "fingerprint": FINGERPRINT}
