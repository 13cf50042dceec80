"""A run of `judgelm-train` that is only tried, and one that is profiled."""

import json

import pytest
from train_command import arguments

from judgelm_jax import run_status
from judgelm_jax.commands import train
from judgelm_jax.commands.command_line import run


@pytest.mark.slow
def test_a_dry_run_says_what_a_run_takes_and_a_profile_holds_its_steps(files, tmp_path, capfd):
    output, summary = tmp_path / "run", tmp_path / "summary.json"
    own = [
        *arguments(files, output, f"--json={summary}", "--overwrite"),
        "--config.training.steps=5",
        "--config.evaluation.every=0",
    ]
    assert run(train.main, train.FLAGS, "train", [*own, "--dry_run"]) == 0
    out, err = capfd.readouterr()
    assert err.endswith(" compiling the training step\n")
    tried = json.loads(summary.read_text())
    assert [path.name for path in tmp_path.iterdir()] == [summary.name]
    assert out.endswith("dry run    nothing was written\n")
    assert "time       about " in out
    assert run(train.main, train.FLAGS, "train", [*own, "--profile=2"]) == 0
    assert f"profile    2 steps, in {output}/profile" in capfd.readouterr().err
    assert list((output / "profile").rglob("*.xplane.pb"))
    real = json.loads(summary.read_text())
    assert tried["steps"] == real["steps"] == 5
    for name, counts in real["epochs"].items():
        assert tried["epochs"][name] == counts
    saved = sum(file.stat().st_size for file in (output / "checkpoints/5").rglob("*") if file.is_file())
    assert 0.5 * saved < tried["state_bytes"] < 2 * saved
    assert tried["seconds"] > 0
    found = run_status.of(output)
    assert (found["done"], found["total"], found["complete"]) == (5, 5, True)
