"""Every benchmark of pairs from its original file to its score, with a judge that is loaded once."""

import json
from pathlib import Path

import pytest
from benchmark_files import ROWS, dumped, place

from judgelm_jax.commands import benchmark
from judgelm_jax.commands.command_line import run
from judgelm_jax.evaluation.benchmarks.catalog import BENCHMARKS

PREFERENCE = {
    "orig_instruction": "i", "orig_response_A": "a", "orig_response_B": "b", "orig_reference_answer": "r", "orig_criteria": "c",
    "orig_preference": "A",
}  # fmt: skip
PAIRS = {
    name: row for name, row in ROWS.items() if name not in ("rewardbench2", "prometheus", "mm_vet")
} | {"prometheus": PREFERENCE}  # fmt: skip


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", list(PAIRS))
@pytest.mark.usefixtures("loaded_once")
def test_a_benchmark_of_pairs_is_judged_and_scored(
    name: str, laboratory_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data = place(tmp_path / "data", name, dumped(name, [PAIRS[name]]))
    base = [f"--name={name}", f"--data={data}"]
    judge = [f"--model={laboratory_checkpoint}", "--dtype=float32", f"--output={tmp_path / 'judged'}"]
    assert run(benchmark.main, benchmark.FLAGS, "benchmark", base + judge) == 0
    (judgment,) = read(tmp_path / "judged/judgments.jsonl")
    orders = next(iter(BENCHMARKS[name].protocols.values())).orders
    assert (judgment["status"], judgment["order"]) == ("ok", orders)
    games = [judgment] if orders == "forward" else [judgment["forward"], judgment["reversed"]]
    assert all(len(game["scores"]) == 2 and game["winner"] in (0, 1, 2) for game in games)
    metrics = json.loads((tmp_path / "judged/metrics.json").read_text())
    assert (metrics["coverage"]["judged"], metrics["coverage"]["missing"]) == (1, 0)
    scored = [f"--predictions={tmp_path / 'judged/judgments.jsonl'}", f"--output={tmp_path / 'scored'}"]
    assert run(benchmark.main, benchmark.FLAGS, "benchmark", base + scored) == 0
    assert json.loads((tmp_path / "scored/metrics.json").read_text()) == metrics | {"output": str(tmp_path / "scored")}
    shown = " ".join(capsys.readouterr().out.split())
    score = metrics["score"]
    assert shown.count(f"score {'-' if score is None else f'{100 * score:.2f} %'}") == 2


@pytest.mark.usefixtures("loaded_once")
def test_a_preset_judges_the_pairs_of_a_benchmark(laboratory_checkpoint: Path, tmp_path: Path) -> None:
    data = place(tmp_path / "data", "pandalm", dumped("pandalm", [ROWS["pandalm"]]))
    flags = ["--name=pandalm", f"--data={data}", f"--model={laboratory_checkpoint}", "--dtype=float32"]
    flags += ["--preset=pandalm", "--mode=distribution", "--context=2048", f"--output={tmp_path / 'judged'}"]
    assert run(benchmark.main, benchmark.FLAGS, "benchmark", flags) == 0
    (judgment,) = read(tmp_path / "judged/judgments.jsonl")
    assert judgment["pred_preset"] == "pandalm"
    assert set(judgment["probabilities"]) == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--model=none", "--preset=auto_j_single"], "--preset=auto_j_single shows one answer"),
        (["--model=none", "--preset=poem"], "--preset=poem: there is no such preset"),
        (["--predictions=none", "--context=64"], "--context goes with --model"),
        (["--predictions=none", "--base=b"], "--base goes with --model"),
    ],
)
def test_flags_of_judging_are_checked_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture, flags: list[str], says: str
) -> None:
    data = place(tmp_path / "data", "pandalm", dumped("pandalm", [ROWS["pandalm"]]))
    base = ["--name=pandalm", f"--data={data}", f"--output={tmp_path / 'judged'}"]
    assert run(benchmark.main, benchmark.FLAGS, "benchmark", base + flags) == 2
    printed = capsys.readouterr().err
    assert says in printed
    assert printed.count("\n") == 1
    assert not (tmp_path / "judged").exists()
