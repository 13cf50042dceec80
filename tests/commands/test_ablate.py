"""The ablation from its flags to its tables, with trainings too short to learn; what was done is not done again."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from judgelm_jax.commands import ablate
from judgelm_jax.commands.command_line import run
from judgelm_jax.evaluation.joining import join
from judgelm_jax.evaluation.metrics import summarize
from judgelm_jax.laboratory.ablation import CELLS, TECHNIQUES

SHORT = ("--quick", "--steps=2", "--pairs=24")
RUNS = ("none", "swap-augmentation", "reference-support", "reference-drop")


def run_ablate(*arguments: object) -> int:
    return run(ablate.main, ablate.FLAGS, "ablate", [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ablate") / "run"
    assert run_ablate(f"--output={folder}", *SHORT) == 0
    return folder


@pytest.mark.slow
def test_every_technique_is_trained_judged_twice_and_reported(folder: Path) -> None:
    summary = json.loads((folder / "ablation.json").read_text())
    assert (summary["seeds"], summary["records"]) == ([0], [24])
    assert [(cell["technique"], cell["reference"]) for cell in summary["cells"]] == [tuple(cell) for cell in CELLS]
    settings = [json.loads((folder / "seed-0" / name / "run.json").read_text()) for name in RUNS]
    assert [
        (
            run["data.swap_augmentation"],
            run["data.reference_support"],
            run["data.reference_drop"] if run["data.reference_support"] else None,
        )
        for run in settings
    ] == [(0.0, False, None), (0.5, False, None), (0.5, True, 0.0), (0.5, True, 0.5)]
    table = (folder / "table.txt").read_text()
    assert all(technique in table for technique in TECHNIQUES)
    assert (folder / "table.md").read_text().startswith("| trained with |")
    assert (folder / "ablation.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_numbers_are_those_that_evaluate_computes_from_the_files(folder: Path) -> None:
    summary = json.loads((folder / "ablation.json").read_text())
    for number, cell in enumerate(summary["cells"]):
        name = "with" if cell["reference"] else "without"
        judged = folder / "seed-0" / f"{RUNS[number // 2]}-judged-{name}-reference.jsonl"
        rows = [json.loads(line) for line in judged.read_text().splitlines()]
        assert all(row["order"] == "both" and row["status"] == "ok" for row in rows)
        metrics = summarize(join(folder / "seed-0/labels.jsonl", judged, None, "tolerant"), parser="tolerant", unparsed="wrong")
        assert cell["agreement"] == pytest.approx(metrics["agreement_forward"])
        for metric in ("consistency", "bias_first", "bias_second", "delta_bias"):
            assert cell[metric] == pytest.approx(metrics[metric]), metric


@pytest.mark.slow
def test_what_is_done_is_not_done_again(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    table = (copy / "table.txt").read_text()
    assert run_ablate(f"--output={copy}", *SHORT) == 0
    assert "trained and judged" not in capsys.readouterr().out
    # Killed in the third training, before its first files were complete: that one is trained again, to the same end.
    for path in (copy / "seed-0").glob("reference-support-judged-*"):
        path.unlink()
    for path in (copy / "seed-0/reference-support").iterdir():
        if path.name != "tokenizer":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run_ablate(f"--output={copy}", *SHORT) == 0
    assert re.findall(r"^(\d/4) .*trained and judged", capsys.readouterr().out, re.MULTILINE) == ["3/4"]
    assert (copy / "table.txt").read_text() == table


def refusal(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert run_ablate(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.slow
def test_what_the_user_can_mend_is_named_in_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "--seeds" in refusal(capsys, f"--output={tmp_path / 'a'}", "--quick", "--seeds=2")
    assert "output" in refusal(capsys)
    assert "another --pairs" in refusal(capsys, f"--output={folder}", "--quick", "--steps=2", "--pairs=25")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious").write_text("x")
    assert "no ablation" in refusal(capsys, f"--output={tmp_path / 'mine'}", "--quick")
    bad = tmp_path / "bad.py"
    bad.write_text("def get_config():\n    return {}\n")
    assert "TrainConfig" in refusal(capsys, f"--output={tmp_path / 'a'}", f"--config={bad}")
    assert not (tmp_path / "a").exists()


def test_help_explains_every_flag_without_starting_jax() -> None:
    code = "import sys; from judgelm_jax.commands.ablate import entry; entry(); assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(f"--{name}: " in done.stdout for name in ("output", "seeds", "quick", "pairs", "steps", "config"))
