"""Runs of `judgelm-judge` that are killed, interrupted, or out of disk: they go on to the same file."""

import json
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
import warm_processes
from judge_command import COUNT, EXPLAIN, PROGRAM, assert_one_line, read, run, shard_of, without_marks
from processes import environment

from judgelm_jax import run_status
from judgelm_jax.judging import manifest, output
from judgelm_jax.records.json_lines import Record

# Each judgment is followed by a pause, so that a signal meets the run and not its end.
SLOW_PROGRAM = f"""
import time
from judgelm_jax.judging.output import Shard
write = Shard.write
def write_and_wait(*arguments):
    write(*arguments)
    time.sleep(0.05)
Shard.write = write_and_wait
{PROGRAM}
"""


def start(*arguments: str, program: str = PROGRAM) -> subprocess.Popen[str]:
    return warm_processes.Process(environment(), program, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(*arguments: str) -> str:
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err == ""
    return out


def stop_after(lines: int, shard: Path, how: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Sends the signal as soon as the shard has `lines` lines; returns how many it then has and what stderr says."""
    process = start(*arguments, program=SLOW_PROGRAM)
    while process.poll() is None and not (shard.exists() and shard.read_bytes().count(b"\n") >= lines):
        time.sleep(0.002)
    process.send_signal(how)
    _, err = process.communicate(timeout=300)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), err
    return shard.read_bytes().count(b"\n"), err


@pytest.fixture(scope="module")
def uninterrupted(laboratory_checkpoint, records, tmp_path_factory) -> list[Record]:
    target = tmp_path_factory.mktemp("uninterrupted") / "judgments.jsonl"
    finish(f"--model={laboratory_checkpoint}", f"--input={records}", f"--output={target}", "--dtype=float32", *EXPLAIN)
    return without_marks(read(target))


@pytest.mark.slow
def test_killed_and_interrupted_the_run_goes_on_to_the_same_file(arguments, uninterrupted):
    target, shard = shard_of(arguments)
    killed, _ = stop_after(3, shard, signal.SIGKILL, *arguments, *EXPLAIN)
    first = shard.read_bytes()
    interrupted, err = stop_after(killed + 3, shard, signal.SIGINT, *arguments, *EXPLAIN, "--resume")
    assert err == "judgelm-judge: interrupted; run the same command with --resume to go on\n"
    assert 3 <= killed < killed + 3 <= interrupted < COUNT
    assert shard.read_bytes().startswith(first[: first.rindex(b"\n") + 1])
    assert not target.exists()
    assert run_status.lines(target, run_status.of(target))[1].endswith("; stopped")
    kept = [json.loads(line.partition(b"\t")[2])["pred_id"] for line in shard.read_bytes().splitlines()]
    out = finish(*arguments, *EXPLAIN, "--resume")
    assert f"judged     {COUNT - interrupted} records" in out
    assert f"{interrupted} were done before" in out
    rows = read(target)
    assert without_marks(rows) == uninterrupted
    assert len({row["pred_id"] for row in rows}) == COUNT
    assert set(kept) <= {row["pred_id"] for row in rows}
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name, manifest.beside(target).name]


@pytest.mark.slow
def test_killed_twenty_five_times_the_run_ends_with_the_same_file(arguments, uninterrupted):
    target, shard = shard_of(arguments)
    lines = 0
    for _ in range(COUNT - 1):
        if lines < COUNT - 2:
            lines, _ = stop_after(lines + 1, shard, signal.SIGKILL, *arguments, *EXPLAIN, "--resume")
        else:  # all but judged: killed somewhere between the start and the first new judgment
            process = start(*arguments, *EXPLAIN, "--resume")
            time.sleep(1)
            process.kill()
            process.communicate()
    finish(*arguments, *EXPLAIN, "--resume")
    assert without_marks(read(target)) == uninterrupted


@pytest.mark.usefixtures("loaded_once")
def test_a_full_disk_ends_the_run_and_keeps_what_was_judged(arguments, tmp_path, capfd):
    target, shard = shard_of(arguments)
    assert run(*arguments) == 0
    expected = without_marks(read(target))
    target.unlink()
    capfd.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))  # no file may be longer: the shard ends in a torn line
    try:
        code = run(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert_one_line(capfd, f"{output.partial_folder(target)}: File too large", "go on with --resume")
    kept = shard.read_bytes()
    assert 2000 < len(kept) <= 4000
    assert kept.endswith(b"}\n")
    assert run(*arguments, "--resume") == 0
    assert f"{kept.count(b'{' + chr(34).encode() + b'question_id')} were done before" in capfd.readouterr().out
    assert without_marks(read(target)) == expected
