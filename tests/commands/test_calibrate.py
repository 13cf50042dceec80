"""The command that fits a calibration: what it writes and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from judgelm_jax.commands import calibrate
from judgelm_jax.commands.command_line import run
from judgelm_jax.evaluation.calibration import held_out, read_calibration, scale


def run_calibrate(*arguments: object) -> int:
    calibrate.FLAGS.unparse_flags()
    for name in calibrate.FLAGS:
        calibrate.FLAGS[name].unparse()
    return run(calibrate.main, calibrate.FLAGS, "calibrate", [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """600 judgments that are surer than they should be, four a question."""
    generator = np.random.default_rng(0)
    honest = generator.dirichlet([0.8, 0.3, 0.8], 600)
    shown = scale(honest, 0.5)
    with (tmp_path / "j.jsonl").open("w") as judgments, (tmp_path / "l.jsonl").open("w") as labels:
        for number in range(600):
            ids = {"question_id": number // 4, "pair_id": number}
            first, tie, second = shown[number].tolist()
            row = {"pred_text": "5 5", "status": "ok", "winner": 1, "probabilities": {"1": first, "0": tie, "2": second}}
            judgments.write(json.dumps(ids | row) + "\n")
            labels.write(json.dumps(ids | {"winner": [1, 0, 2][int(generator.choice(3, p=honest[number]))]}) + "\n")
    return [f"--judgments={tmp_path / 'j.jsonl'}", f"--labels={tmp_path / 'l.jsonl'}"]


def test_it_fits_on_some_questions_and_measures_on_others(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    target = tmp_path / "calibration.json"
    assert run_calibrate(*files, f"--output={target}") == 0
    summary = json.loads(target.read_text())
    assert summary["temperature"] == pytest.approx(2, rel=0.3)
    assert summary["after"]["log_loss"] < summary["before"]["log_loss"]
    assert summary["after"]["ece"] < summary["before"]["ece"]
    measured = [number for number in range(600) if held_out(str(number // 4))]
    assert summary["measured_on"] == {"records": len(measured), "clusters": len(measured) // 4}
    assert summary["fitted_on"]["records"] == 600 - len(measured)
    assert read_calibration(target).temperature == summary["temperature"]
    assert "before" in capsys.readouterr().out


def test_what_the_user_can_fix_ends_with_code_2(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    target = tmp_path / "calibration.json"
    plain = tmp_path / "plain.jsonl"
    plain.write_text("".join(json.dumps({"pair_id": n, "pred_text": "9 1"}) + "\n" for n in range(600)))
    assert run_calibrate(f"--judgments={plain}", files[1], f"--output={target}") == 2
    assert "--mode=distribution" in capsys.readouterr().err
    assert not target.exists()
    target.write_text("precious")
    assert run_calibrate(*files, f"--output={target}") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert target.read_text() == "precious"


@pytest.mark.parametrize(("wrong", "warns"), [(0, True), (1, False)])
def test_a_judge_that_is_always_right_cannot_be_calibrated(
    tmp_path: Path, capsys: pytest.CaptureFixture, wrong: int, warns: bool
) -> None:
    fitted = [number for number in range(120) if not held_out(str(number))]
    said = {"pred_text": "5 4", "status": "ok", "winner": 1, "probabilities": {"1": 0.6, "0": 0.1, "2": 0.3}}
    rows = [{"question_id": n, **said} for n in range(120)]
    labels = [{"question_id": n, "winner": 2 if n in fitted[:wrong] else 1} for n in range(120)]
    for name, lines in (("j", rows), ("l", labels)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = [f"--judgments={tmp_path / 'j.jsonl'}", f"--labels={tmp_path / 'l.jsonl'}"]
    assert run_calibrate(*files, f"--output={tmp_path / 'calibration.json'}") == 0
    assert ("the judge is right on all of these" in capsys.readouterr().out) == warns
