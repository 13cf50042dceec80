"""A run of `judgelm-judge` that is only tried, and one that is profiled."""

import json

import pytest
from judge_command import COUNT, run

pytestmark = pytest.mark.usefixtures("loaded_once")


def test_a_dry_run_says_what_a_run_takes_and_writes_nothing(arguments, tmp_path, capfd):
    before = sorted(tmp_path.iterdir())
    summary = tmp_path / "summary.json"
    assert run(*arguments, "--orders=both", "--dry_run", f"--json={summary}") == 0
    out = capfd.readouterr().out
    found = json.loads(summary.read_text())
    assert sorted(tmp_path.iterdir()) == [*before, summary]
    assert (found["records"], found["prompts"], found["overflow"]) == (COUNT, 2 * COUNT, 0)
    assert f"records    {COUNT}: {2 * COUNT} prompts, {found['tokens']} tokens, the longest {found['longest']};" in out
    assert out.endswith("dry run    nothing was written\n")
    assert run(*arguments, "--orders=both", f"--json={summary}", "--overwrite") == 0
    real = json.loads(summary.read_text())
    assert real["prompt_tokens"] - found["tokens"] in (0, found["tokens"])  # the judge that tests share counts both runs
    assert found["seconds"] > 0
    assert found["memory"] > 1e6


def test_a_profile_holds_the_steps(arguments, tmp_path, capfd):
    target = tmp_path / "judgments.jsonl"
    assert run(*arguments, "--batch_size=2", "--profile=2") == 0
    assert f"profile    2 steps, in {target}.profile" in capfd.readouterr().err
    assert list((tmp_path / "judgments.jsonl.profile").rglob("*.xplane.pb"))
