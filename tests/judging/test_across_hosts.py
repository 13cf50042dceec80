"""One judge on the devices of several processes says what it says in one process."""

import hashlib
import json
import signal
import time

import numpy as np
import pytest
from asked_kinds import ASKED, REASONING, records_of
from free_ports import free_port
from judge_command import read, run, write
from several_processes import end, run_in_turn, run_together, start, start_together

from judgelm_jax import laboratory
from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.judging import manifest, output
from judgelm_jax.laboratory.checkpoint import _write
from judgelm_jax.training_config import ModelShape

COUNT, FEW = 30, 8
MODES = {
    "scores": ["--orders=both"],
    "explain": ["--orders=reversed", "--max_new_tokens=24"],
    "distribution": ["--orders=both"],
}
TOLERANCE = 1e-4  # of probabilities and expected scores, in float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("across")
    shape = ModelShape(hidden_size=64, intermediate_size=96, num_layers=2, num_heads=8, num_kv_heads=4, context=1024)
    (folder / "judge").mkdir()
    _write(folder / "judge", 0, shape, laboratory.write_tokenizer(folder / "judge"))  # its 512 words divide by 4
    records = [pair.record for pair in laboratory.make_pairs(COUNT, seed=3)]
    write(folder / "records.jsonl", records)
    write(folder / "few.jsonl", records[:FEW])
    convert(open_checkpoint(str(folder / "judge")), folder / "orbax" / "judge", "orbax")  # the name stands in judgments
    return folder


def arguments(folder, target, mode, *more, model="judge"):
    files = [f"--model={folder / model}", f"--input={folder / 'records.jsonl'}", f"--output={target}"]
    return [*files, "--dtype=float32", f"--mode={mode}", *MODES[mode], *more]


@pytest.fixture(scope="module")
def alone(folder):
    """Judgments of this process, by mode; each is asked for once."""
    made = {}

    def of(mode):
        if mode not in made:
            target = folder / f"alone-{mode}.jsonl"
            assert run(*arguments(folder, target, mode)) == 0
            made[mode] = read(target)
        return made[mode]

    return of


def assert_same(found, expected):
    """The same but for marks, and for the rounding of numbers that are no verdicts."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name in ("pred_id", "tstamp"):
            continue
        if isinstance(value, dict):
            assert_same(found[name], value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for own, other in zip(found[name], value, strict=True):
                assert_same(own, other)
        elif isinstance(value, float) or (isinstance(value, list) and value and isinstance(value[0], float)):
            np.testing.assert_allclose(found[name], value, atol=TOLERANCE, err_msg=name)
        else:
            assert found[name] == value, name


def assert_all_same(target, expected):
    for own, other in zip(read(target), expected, strict=True):
        assert_same(own, other)
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name, manifest.beside(target).name]


def test_two_processes_judge_as_one(folder, tmp_path):
    own = [f"--model={folder / 'judge'}", f"--input={folder / 'few.jsonl'}", "--dtype=float32"]
    target, alone, summary = tmp_path / "two" / "judgments.jsonl", tmp_path / "alone.jsonl", tmp_path / "summary.json"
    target.parent.mkdir()
    together = start_together("judge", [*own, f"--output={target}", "--mesh=tensor:2", f"--json={summary}"], 2, devices=1)
    assert run(*own, f"--output={alone}") == 0  # meanwhile
    ended = end(together)
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert_all_same(target, read(alone))
    (_, first, _), (_, second, said) = ended
    assert "2 processes, 2 devices" in first
    assert f"in all     {FEW} records" in first
    assert (second, said) == ("", "")
    assert json.loads(summary.read_text())["judged"] == FEW


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "mesh", "mode"),
    [
        (2, "data:4", "explain"),
        (2, "fsdp:2,tensor:2", "distribution"),
        (4, "data:2,tensor:4", "explain"),
    ],
)
def test_on_any_mesh_across_processes_the_verdicts_are_those_of_one(count, mesh, mode, folder, alone, tmp_path):
    target = tmp_path / "judgments.jsonl"
    model = "orbax/judge" if mode == "explain" else "judge"
    run_together("judge", arguments(folder, target, mode, f"--mesh={mesh}", model=model), count)
    assert_all_same(target, alone(mode))


# What is asked of kinds and presets, and over which mesh of two processes with two devices each.
ACROSS = {
    "single": ("distribution", "data:4"),
    "multi": ("scores", "data:2,tensor:2"),
    "multimodal": ("distribution", "data:4"),
    "conversation": ("scores", "data:4"),
    "pandalm": ("distribution", "tensor:4"),
    "reasoning": ("distribution", "data:4"),
}


@pytest.mark.slow
def test_every_kind_and_presets_with_labels_or_a_reason_judge_across_processes_as_in_one(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reasoning.toml").write_text(REASONING)
    (tmp_path / "two").mkdir()

    def flags(asked, target, *more):
        mode, _ = ACROSS[asked]
        own = {"kind": "pair", **ASKED[asked], "mode": mode, "dtype": "float32"}
        if mode == "scores":
            own["temperature"] = 2.0  # an untrained judge's likeliest line is always the same
        source = tmp_path / f"{own['kind']}.jsonl"
        if not source.exists():
            write(source, list(records_of(own["kind"])))
        files = [f"--model={folder / 'judge'}", f"--input={source}", f"--output={target}"]
        return [*files, *(f"--{name}={value}" for name, value in own.items()), *more]

    runs = [flags(asked, tmp_path / "two" / asked, f"--mesh={mesh}") for asked, (_, mesh) in ACROSS.items()]
    dry, profiled = tmp_path / "dry", tmp_path / "profiled"
    runs.append(flags("single", dry, "--dry_run", f"--json={tmp_path / 'dry.json'}"))
    runs.append(flags("pandalm", profiled, "--batch_size=4", "--profile=1", f"--json={tmp_path / 'profiled.json'}"))
    (first, said), (second, second_said) = run_in_turn("judge", runs, 2)

    for asked in ACROSS:
        assert run(*flags(asked, tmp_path / asked)) == 0
        found, expected = read(tmp_path / "two" / asked), read(tmp_path / asked)
        assert {row["status"] for row in expected} == {"ok"}
        assert len({json.dumps(row.get("expected_scores", row.get("probabilities", row["scores"]))) for row in expected}) > 1
        for own, other in zip(found, expected, strict=True):
            assert_same(own, other)

    # Tried only, and traced: a report of process 0, nothing of the other, a trace of each in its own folder.
    assert second == [""] * len(runs)
    assert first[-2].endswith("dry run    nothing was written\n")
    assert json.loads((tmp_path / "dry.json").read_text())["records"] == 6
    assert not dry.exists()
    assert not output.partial_folder(dry).exists()
    for own, err in enumerate((said, second_said)):
        place = tmp_path / "profiled.profile" / f"process-{own}"
        assert err == f"profile    1 steps, in {place}\n"
        assert len(list(place.rglob("*.xplane.pb"))) == 1
    assert sorted(path.name for path in (tmp_path / "profiled.profile").iterdir()) == ["process-0", "process-1"]
    assert json.loads((tmp_path / "profiled.json").read_text())["judged"] == 6


@pytest.mark.slow
def test_sigterm_at_one_host_ends_all_and_another_number_of_hosts_goes_on(folder, alone, tmp_path):
    target = tmp_path / "judgments.jsonl"
    shard = output.partial_folder(target) / "shard-00000-of-00001.jsonl"
    own = arguments(folder, target, "explain", "--resume", "--batch_size=4")
    together = start_together("judge", own, 3)
    begun = time.monotonic()
    while time.monotonic() < begun + 200 and all(process.poll() is None for process in together):
        if shard.exists() and shard.read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.005)
    together[1].send_signal(signal.SIGTERM)
    for number, (code, _, err) in enumerate(end(together, timeout=60)):
        assert code == 143, err
        (line,) = err.splitlines()
        assert line.startswith("judgelm-judge: process 1 on " if number != 1 else "judgelm-judge: stopped by SIGTERM")
        assert "run again with --resume to go on" in line
    kept = shard.read_bytes().count(b"\n")
    assert 3 <= kept < COUNT
    (_, out, _), _ = run_together("judge", own, 2, devices=1)
    assert f"{kept} were done before" in out
    assert_all_same(target, alone("explain"))
    for number, (_, out, err) in enumerate(run_together("judge", own, 2, devices=1)):
        assert err == ""
        assert ("is complete, nothing to do" in out) == (number == 0)


@pytest.mark.slow
def test_flags_and_files_that_differ_stop_the_run_and_name_the_host(folder, tmp_path):
    target = tmp_path / "judgments.jsonl"
    own = [one for one in arguments(folder, target, "scores") if not one.startswith("--input=")]
    inputs = [folder / "records.jsonl", folder / "few.jsonl"]
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in inputs]
    port = free_port()
    together = [
        start(
            "judge",
            [
                *(*own, f"--seed={number}", f"--input={inputs[number]}"),
                *(f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={number}"),
            ],
            before=f"import socket; socket.gethostname = lambda: 'host-{number}'\n"
            "from judgelm_jax.processes import joining; joining._refuse_loopback = lambda here: None",
        )
        for number in range(2)
    ]
    for code, _, err in end(together):
        assert code == 2
        (line,) = err.splitlines()
        assert "--seed is 1 in process 1 on host-1 and 0 in process 0 on host-0" in line
        assert f"--input is {hashes[1]} in process 1 on host-1 and {hashes[0]} in process 0 on host-0" in line
        assert line.endswith("give all of them the same")
    assert not target.exists()
