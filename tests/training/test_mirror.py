"""A training run in an object store: checkpoints that are whole or not there, and a run that goes on anywhere."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from launcher_files import write_training
from object_store import ObjectStore
from train_command import ended, losses, start

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.errors import InputError
from judgelm_jax.storage import object_storage
from judgelm_jax.training import mirror

MARK = "_CHECKPOINT_METADATA"


def save(run: Path, step: int, text: str = "") -> None:
    folder = run / "checkpoints" / str(step)
    (folder / "state").mkdir(parents=True)
    (folder / "state/a").write_text(f"weights of step {step}")
    (folder / MARK).write_text(json.dumps({"made": text or f"{run} {step}"}))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(f"{step}\n")


def begin(run: Path) -> None:
    (run / "tokenizer").mkdir()
    (run / "tokenizer/tokenizer.json").write_text("{}")
    (run / "run.json").write_text("{}")
    (run / "lock").touch()


def steps(store: ObjectStore) -> list[str]:
    return sorted(name.split("/")[2] for name in store.names() if name.endswith(MARK))


def test_checkpoints_come_with_the_journal_behind_them_and_go_when_they_are_not_kept(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    url, run = f"{object_store.url}/run", tmp_path / "a/run"
    mirror._restore(url, run)
    copies = mirror._Copies(url, run)
    run.mkdir()
    begin(run)
    save(run, 3)
    (run / "checkpoints/6.orbax-checkpoint-tmp-1").mkdir()
    (run / "checkpoints/6.orbax-checkpoint-tmp-1/half").touch()
    copies.bring_up_to_date()
    journal = ["run/metrics.jsonl", "run/run.json", "run/tokenizer/tokenizer.json"]
    assert sorted(object_store.names()) == [f"run/checkpoints/3/{MARK}", "run/checkpoints/3/state/a", *journal]
    shutil.rmtree(run / "checkpoints/6.orbax-checkpoint-tmp-1")
    save(run, 6)
    save(run, 9)
    shutil.rmtree(run / "checkpoints/3")
    object_store.faults.requests.clear()
    copies.bring_up_to_date()
    assert steps(object_store) == ["6", "9"]
    written = [request.partition("/run/")[2] for request in object_store.faults.requests if request.startswith("PUT")]
    assert written == ["metrics.jsonl", "checkpoints/6/state/a", f"checkpoints/6/{MARK}", "checkpoints/9/state/a",
                       f"checkpoints/9/{MARK}"]  # fmt: skip
    object_store.faults.requests.clear()
    copies.bring_up_to_date()
    assert not [request for request in object_store.faults.requests if request.startswith(("PUT", "DELETE"))]


@pytest.mark.parametrize("every", [None, 3], ids=["sound", "a third fails"])
def test_a_killed_run_goes_on_on_another_machine_from_what_is_whole(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None
) -> None:
    monkeypatch.setattr(object_storage.time, "sleep", lambda _: None)
    monkeypatch.setattr(mirror, "SECONDS", 0.02)
    url, run = f"{object_store.url}/run", tmp_path / "a/run"
    with mirror.mirrored(url, run):
        run.mkdir()
        begin(run)
        save(run, 3)
        save(run, 6)
        (run / "model").mkdir()
        (run / "model/config.json").touch()
    object_store.put("run/checkpoints/9/state/a", b"half")
    object_store.faults.every = every
    again = tmp_path / "b/run"
    with mirror.mirrored(url, again):
        assert sorted(path.name for path in (again / "checkpoints").iterdir()) == ["3", "6"]
        assert (again / "checkpoints/6/state/a").read_text() == "weights of step 6"
        assert (again / "metrics.jsonl").read_text() == "3\n6\n"
        assert not (again / "model").exists()
        save(again, 9)
    object_store.faults.every = None
    assert steps(object_store) == ["3", "6", "9"]
    assert object_store.content("run/checkpoints/9/state/a") == b"weights of step 9"
    assert "run/model/config.json" in object_store.names()


def test_a_second_run_to_the_same_place_is_noticed_and_stops(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []
    monkeypatch.setattr(mirror, "SECONDS", 0.02)
    monkeypatch.setattr(mirror.os, "kill", lambda _, number: stopped.append(number))
    url, run = f"{object_store.url}/run", tmp_path / "a/run"

    def train() -> None:
        with mirror.mirrored(url, run):
            run.mkdir()
            object_store.put(f"run/checkpoints/3/{MARK}", b"of another run")
            save(run, 3)
            until = time.monotonic() + 20
            while not stopped and time.monotonic() < until:
                time.sleep(0.01)

    with pytest.raises(InputError, match=f"checkpoints/3/{MARK}: another process writes it"):
        train()
    assert stopped == [signal.SIGTERM]
    assert object_store.content(f"run/checkpoints/3/{MARK}") == b"of another run"


def test_it_imports_no_jax() -> None:
    program = "import sys, judgelm_jax.training.mirror; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.slow
def test_the_command_is_killed_and_goes_on_from_the_store(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write_training(tmp_path, rows=48)
    url = f"{object_store.url}/run"
    code, _, err = ended(start([*own, f"--output={tmp_path / 'whole'}"]))
    assert code == 0, err
    process = start([*own, f"--output={url}"], before="from judgelm_jax.training import mirror; mirror.SECONDS = 0.05")
    until = time.monotonic() + 200
    while not steps(object_store) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    ended(process)
    assert steps(object_store)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another-machine"))
    code, out, err = ended(start([*own, f"--output={url}", "--resume"]))
    assert code == 0, err
    assert "of them before" in out
    assert f"output     {url}/model" in out
    journal = tmp_path / "journal"
    journal.mkdir()
    (journal / "metrics.jsonl").write_bytes(object_store.content("run/metrics.jsonl"))
    assert losses(journal) == losses(tmp_path / "whole")
    for name in object_store.names():
        if name.startswith("run/model/"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(object_store.content(name))
    stored, expected = (
        open_checkpoint(str(folder / "model")).load(None, "float32") for folder in (tmp_path / "run", tmp_path / "whole")
    )
    assert jax.tree.structure(stored) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, stored, expected)  # every bit of every weight
