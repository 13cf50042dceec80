"""Judging with a calibration: the judgments are those without it, with it applied."""

import json
from pathlib import Path

import pytest

from judgelm_jax import laboratory
from judgelm_jax.commands import judge
from judgelm_jax.commands.command_line import run
from judgelm_jax.evaluation.calibration import Calibration, apply


def run_judge(*arguments: str) -> int:
    judge.FLAGS.unparse_flags()
    for name in judge.FLAGS:
        judge.FLAGS[name].unparse()
    return run(judge.main, judge.FLAGS, "judge", arguments)


def read(path: Path) -> list[dict]:
    """The judgments without what differs from run to run."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in ("pred_id", "tstamp")} for row in rows]


def test_judgments_are_calibrated_and_another_calibration_is_another_run(
    laboratory_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    records, chosen = tmp_path / "records.jsonl", tmp_path / "calibration.json"
    pairs = laboratory.make_pairs(3, seed=3)
    records.write_text("".join(json.dumps(pair.record) + "\n" for pair in pairs))
    chosen.write_text('{"temperature": 0.5, "tie_threshold": 0.01}')
    common = [
        f"--model={laboratory_checkpoint}",
        f"--input={records}",
        "--dtype=float32",
        "--score_grid=1:3:1",
        "--orders=both",
    ]
    plain, calibrated = tmp_path / "plain.jsonl", tmp_path / "calibrated.jsonl"
    asked = f"--calibration={chosen}"
    assert run_judge(*common, asked, f"--output={calibrated}") == 2  # mode scores
    assert "--mode=distribution" in capsys.readouterr().err
    common.append("--mode=distribution")
    assert run_judge(*common, f"--output={plain}") == 0
    assert run_judge(*common, asked, f"--output={calibrated}") == 0
    assert read(calibrated) == [apply(row, Calibration(0.5, 0.01)) for row in read(plain)]
    assert read(calibrated) != read(plain)
    chosen.write_text("{}")
    assert run_judge(*common, asked, f"--output={tmp_path / 'other.jsonl'}") == 2
    assert "calibration.json" in capsys.readouterr().err
