import collections
import errno
import fcntl
import json
import os
import re
import resource
import struct
import sys
import termios
import time
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from judgelm_jax.errors import InputError
from judgelm_jax.training import journal as journals
from judgelm_jax.training.journal import Journal
from judgelm_jax.training.run_folder import METRICS_FILE, TENSORBOARD

LINE = {"loss": 1.5, "gradient_norm": 2.0, "learning_rate": 1e-3, "tokens_per_second": 10.0, "utilization": 0.5}
LINE |= {"memory_bytes": 10**9}
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def lines(folder):
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def test_going_on_takes_back_what_was_written_after_the_checkpoint(tmp_path):
    journal = Journal(tmp_path, 0, 10)
    for step in range(1, 6):
        journal.write(step, "train", LINE | {"loss": float(step)})
    journal.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 6, "lo')  # a kill in the middle of a line
    again = Journal(tmp_path, 3, 10)
    again.write(4, "train", LINE | {"loss": 40.0})
    again.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1), (2, 2), (3, 3), (4, 40)]
    events = EventAccumulator(str(tmp_path / TENSORBOARD)).Reload().Scalars("train/loss")
    assert [(event.step, event.value) for event in events] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_without_a_terminal_steps_are_told_once_a_minute_and_evaluations_always(tmp_path, capsys, monkeypatch):
    seconds = iter(range(0, 1000, 25))
    monkeypatch.setattr(journals.time, "monotonic", lambda: float(next(seconds)) / 2)  # two readings a step: 25 s
    journal = Journal(tmp_path, 0, 10)
    for step in range(1, 10):
        journal.write(step, "train", LINE)
    journal.write(9, "evaluation", {"loss": 2.5, "records": 8, "agreement": 0.125, "agreement_interval": [0.1, 0.2]})
    journal.write(10, "train", LINE | {"loss": None, "utilization": None})
    journal.close()
    out, err = capsys.readouterr()
    assert out == ""
    told = err.splitlines()
    assert all(re.match(TIME, line) for line in told)
    steps = [int(step) for step in re.findall(r"step (\d+) of 10(?:: |, [^h])", err)]
    assert steps[0] == 1
    assert steps[-1] == 10
    assert 3 <= len(steps) <= 6
    assert "step 9 of 10, held out: loss 2.5000, records 8, agreement 0.1250" in told[-2]
    assert "loss not finite, gradient 2.0000, rate 1.0e-03" in told[-1]
    assert lines(tmp_path)[-1]["loss"] is None


def test_the_time_that_is_left_is_that_of_steps_and_not_of_compiling(tmp_path, monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr(journals, "time", SimpleNamespace(**vars(time) | {"monotonic": lambda: clock[0]}))
    journal = Journal(tmp_path, 4, 44)
    clock[0] = 500.0  # of compiling
    for step in range(5, 45):
        journal.write(step, "train", LINE)
        clock[0] += 30.0
    journal.close()
    said = [line.partition(": ")[0].partition("step ")[2] for line in capsys.readouterr().err.splitlines()]
    assert said[:3] == ["5 of 44", "7 of 44, 18 min 30 s left", "9 of 44, 17 min 30 s left"]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_the_bar_fits_the_terminal_and_80_columns(tmp_path, monkeypatch, columns):
    leader, follower = os.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        journal = Journal(tmp_path, 0, 1_000_000)
        journal.say("something happened")
        journal.write(999_999, "train", LINE | {"loss": 11.23456, "tokens_per_second": 1_234_567.8})
        journal.close()
        shown = b""
        while not (b"999999" in shown and shown.endswith(b"\n")):  # the kernel may pass it on in parts
            shown += os.read(leader, 2**16)
    os.close(leader)
    shown = shown.decode()
    assert "something happened" in shown
    assert all(len(piece.strip("\n")) < min(columns, 80) for piece in re.split(r"[\r\n]|\x1b\[[A-Z]", shown))
    if columns >= 80:
        assert "loss 11.2346, 1235k tokens/s" in shown


class Full:
    """A file on a disk that has room for some more writes."""

    def __init__(self, file, writes):
        self.file, self.writes = file, writes

    def write(self, data):
        self.writes -= 1
        if self.writes < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("writes", [0, 1, 5, 20])
def test_a_run_goes_on_without_tensorboard_and_says_so_once(writes, tmp_path, capsys, monkeypatch):
    real = journals.RecordWriter
    monkeypatch.setattr(journals, "RecordWriter", lambda path: Full(real(path), writes))
    journal = Journal(tmp_path, 0, 100)
    for step in range(1, 51):  # more than tensorboardX's queue holds
        journal.write(step, "train", LINE)
    journal.close()
    said = capsys.readouterr().err
    assert said.count("tensorboard: cannot be written (No space left on device); the run goes on without TensorBoard") == 1
    assert len(lines(tmp_path)) == 50


def test_metrics_that_cannot_be_written_end_the_run(tmp_path):
    journal = Journal(tmp_path, 0, 10_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(InputError, match=r"metrics.jsonl: cannot be written \(File too large\); make room .* --resume"):
            collections.deque((journal.write(step, "train", LINE) for step in range(1, 10_000)), maxlen=0)
        journal.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    whole = len([line for line in (tmp_path / METRICS_FILE).read_text().splitlines(keepends=True) if line.endswith("\n")])
    assert whole > 10
    Journal(tmp_path, whole, 10_000).close()  # and it can go on
    assert len(lines(tmp_path)) == whole
