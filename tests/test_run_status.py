"""How far runs are, from files as runs leave them at some moment."""

import json
import os
import sys

import pytest

from judgelm_jax import run_status
from judgelm_jax.errors import InputError
from judgelm_jax.judging import manifest, output
from judgelm_jax.judging.progress import Progress, described, read_state
from judgelm_jax.notices import duration
from judgelm_jax.records.json_lines import dump_line


def row(status="ok"):
    return {"status": status, "winner": 1, "order": "forward"}


def shard_of(target, part, parts, records):
    return output.open_shard(target, {"model": "m"}, records, part, parts, resume=True)


def test_a_judging_run_is_followed_from_its_start_to_its_end(tmp_path):
    target = tmp_path / "judgments.jsonl"
    with pytest.raises(InputError, match="no run writes there"):
        run_status.of(target)
    for part in range(2):
        with shard_of(target, part, 2, 10) as shard:
            progress = Progress(shard.folder, part, 10, {}, 5)
            began = run_status.of(target)
            assert (began["done"], began["total"], began["complete"]) == (5 * part, 10, False)
            for index in range(part, 10, 2):
                own = row("overflow" if index == 3 else "ok")
                shard.write(index, own)
                progress.add(own)
            progress.close()
            now = run_status.of(target)
            assert now["done"] == 5 * (part + 1)
            assert now["failed"] == part
            assert now["shards"][str(part)]["host"] == os.uname().nodename
            assert now["shards"][str(part)]["process_id"] == os.getpid()
            text = "\n".join(run_status.lines(target, now))
            assert f"{5 * (part + 1)} of 10 records, {part} failed" in text
            assert text.count("\n") == 2
            assert (now["not_begun"], "not begun: shard 1" in text) == (([1], True) if part == 0 else ([], False))
            shard.finish()
    after = run_status.of(target)
    assert (after["done"], after["total"], after["complete"], after["failed"]) == (10, 10, True, 1)
    assert run_status.lines(target, after)[0].endswith("; complete")
    assert sorted(path.name for path in tmp_path.iterdir()) == [target.name, manifest.beside(target).name]


def test_the_rate_is_of_the_shards_that_run(tmp_path):
    target = tmp_path / "judgments.jsonl"
    folder = output.partial_folder(target)
    folder.mkdir()
    own = manifest.make({"model": "m"}, 150, 5)
    (folder / "manifest.json").write_text(json.dumps(own))
    shard = {"process_id": 1, "total": 50, "statuses": {"ok": 9, "unparsed": 1}, "began": 0.0, "done": 10}
    shards = {
        "0": shard | {"host": "a", "rate": 2.0, "seconds_left": 20.0, "updated": 1000.0},
        "1": shard | {"host": "b", "rate": 4.0, "seconds_left": 10.0, "updated": 700.0},  # silent for five minutes
        "2": shard | {"host": "c", "rate": 8.0, "seconds_left": 0.0, "updated": 990.0, "done": 50},  # done
    }
    (folder / "state.json").write_text(json.dumps({"version": 1, "total": 150, "shards": shards}))
    found = run_status.of(target, now=1000.0)
    assert found["rate"] == 2.0
    assert found["done"] == 70
    assert found["seconds_left"] == (150 - 70) / 2.0
    assert found["failed"] == 3
    told = run_status.lines(target, found)
    assert told[2] == "  shard 1 on b: 10 of 50, 1 failed, 4.00 records/s, last news 5 min 0 s ago"
    assert told[4:] == ["  not begun: shard 3, 4"]
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="no run writes there any more"):
        run_status.of(target)


def test_a_shard_that_was_interrupted_is_stopped_and_another_goes_on(tmp_path):
    target = tmp_path / "judgments.jsonl"
    for part in range(2):
        with shard_of(target, part, 2, 10) as shard:
            progress = Progress(shard.folder, part, 10, {"ok": 2}, 5)
            shard.write(part, row())
            progress.add(row())
            if part == 0:
                progress.close()
    found = run_status.of(target)
    assert found["rate"] == found["shards"]["1"]["rate"]
    first, stopped, other, says = run_status.lines(target, found)
    assert first.startswith(f"judging {target}: 5 of 10 records")  # the second has not written what it did last
    assert (stopped.endswith("; stopped"), other.endswith("; stopped")) == (True, False)
    assert says == "  what stopped goes on with the same command and --resume"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 9, "shards": {}}', '{"version": 1, "shards": []}'])
def test_a_damaged_state_file_is_none(tmp_path, damage):
    path = tmp_path / "state.json"
    path.write_text(damage)
    assert read_state(path) == {}
    progress = Progress(tmp_path, 0, 4, {"ok": 1}, 4)
    progress.close()
    assert read_state(path)["shards"]["0"]["done"] == 1


def test_without_a_terminal_lines_are_logged_and_without_a_folder_nothing(tmp_path, monkeypatch, capfd):
    now = [0.0]
    monkeypatch.setattr("judgelm_jax.judging.progress.time.monotonic", lambda: now[0])
    for folder in (tmp_path, None):
        progress = Progress(folder, 0, 100, {"ok": 10}, 100)
        for _ in range(20):
            now[0] += 13  # a line a minute: after every fifth record
            progress.add(row("unparsed"))
        progress.close()
    logged = capfd.readouterr().err.splitlines()
    assert len(logged) == 4
    assert logged[0].endswith(f"{os.uname().nodename} shard 0: 15 of 100 records, 5 failed, 0.08 records/s, 18 min 25 s left")


def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path):
    progress = Progress(tmp_path / "gone", 0, 4, {}, 4)
    progress.add(row())
    progress.close()
    assert not (tmp_path / "gone").exists()


def test_a_training_run_is_followed(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"steps": 40}))
    assert run_status.lines(tmp_path, run_status.of(tmp_path)) == [f"training {tmp_path}: step 0 of 40; no step yet"]
    metrics = tmp_path / "metrics.jsonl"
    line = {"kind": "train", "tokens_per_second": 1234.5, "seconds": 3.0}
    rows = [line | {"step": step, "loss": 2.0 / step, "padding": "x" * 10_000} for step in range(1, 11)]
    metrics.write_text("".join(dump_line(one) + "\n" for one in rows) + dump_line(line | {"step": 11})[:20])
    os.utime(metrics, (1000, 1000))
    found = run_status.of(tmp_path, now=1065.0)
    assert (found["done"], found["total"], found["complete"], found["loss"]) == (10, 40, False, 0.2)
    assert found["seconds_left"] == 30 * 3.0
    (said,) = run_status.lines(tmp_path, found)
    assert said.endswith("step 10 of 40, loss 0.2000, 1,234 tokens/s, 1 min 30 s left; last step 1 min 5 s ago")
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(InputError, match="is damaged"):
        run_status.of(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (7322, "2 h 2 min")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said


def test_a_shard_that_has_just_begun_has_no_rate():
    own = {"host": "a", "done": 0, "total": 4, "rate": 0.0, "seconds_left": None, "statuses": {}}
    assert described(own, 3) == "a shard 3: 0 of 4 records, 0 failed, 0.00 records/s"


def test_nothing_here_imports_jax():
    assert os.system(f"{sys.executable} -c 'import sys, judgelm_jax.commands.status; sys.exit(\"jax\" in sys.modules)'") == 0
