"""The `benchmark` command, from the original files to its folder, and its refusals."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from judgelm_jax.commands import benchmark
from judgelm_jax.commands.command_line import run
from judgelm_jax.records.records import check_records

ITEM = {"input": "Which?", "output_1": "this", "output_2": "that", "label": 1}


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_benchmark(*arguments: object) -> int:
    return run(benchmark.main, benchmark.FLAGS, "benchmark", [str(argument) for argument in arguments])


def refusal(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert run_benchmark(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("judgelm-benchmark: ")
    return captured.err


@pytest.fixture
def llmbar(tmp_path: Path) -> Path:
    path = tmp_path / "Natural/dataset.json"
    path.parent.mkdir()
    path.write_text(json.dumps([ITEM | {"input": f"{number}?", "label": 1 + number % 2} for number in range(4)]))
    return path


def test_published_predictions_leave_four_files(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, data = tmp_path / "out", shared / "data/benchmarks/pandalm"
    predictions = data / "pandalm-7b-testset-v1.json"
    arguments = ("--name=pandalm", f"--data={data}", f"--predictions={predictions}", f"--output={folder}")
    assert run_benchmark(*arguments, f"--json={tmp_path / 'copy.json'}") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "score 66.77 %" in shown
    assert "f1 57.43 %" in shown
    assert "majority of three annotators" in shown
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == json.loads((tmp_path / "copy.json").read_text())
    assert (metrics["protocol"], metrics["reduction"], metrics["coverage"]["judged"]) == ("one_order", "majority", 999)
    assert check_records(folder / "records.jsonl").records == 999
    assert len(read(folder / "labels.jsonl")) == len(read(folder / "judgments.jsonl")) == 999
    assert "exists already" in refusal(capsys, *arguments)
    assert run_benchmark(*arguments, "--overwrite", "--reduction=annotator1", "--limit=50") == 0
    assert json.loads((folder / "metrics.json").read_text())["total"] == 50


def test_its_own_judgments_score_the_same_again(llmbar: Path, tmp_path: Path) -> None:
    games = {"swap = False": {"winner": "1"}, "swap = True": {"winner": "2"}}
    result = tmp_path / "result.json"
    result.write_text(json.dumps([item | {"results": [games]} for item in json.loads(llmbar.read_text())]))
    for number, predictions in enumerate((result, tmp_path / "out0/judgments.jsonl")):
        output = tmp_path / f"out{number}"
        flags = ("--name=llmbar", f"--data={llmbar}", f"--predictions={predictions}", f"--output={output}")
        assert run_benchmark(*flags) == 0
        assert json.loads((output / "metrics.json").read_text())["score"] == 0.5


def test_two_files_are_the_games_of_both_orders(llmbar: Path, tmp_path: Path) -> None:
    assert run_benchmark("--name=llmbar", f"--data={llmbar}", f"--predictions={_ours(llmbar, tmp_path, '9 1')}",
                         f"--predictions={_ours(llmbar, tmp_path, '2 8', order='reversed')}",
                         f"--output={tmp_path / 'out'}", "--protocol=both_right") == 0  # fmt: skip
    assert json.loads((tmp_path / "out/metrics.json").read_text())["score"] == 0.5
    assert all(row["consistent"] for row in read(tmp_path / "out/judgments.jsonl"))


def _ours(data: Path, folder: Path, text: str, **fields: str) -> Path:
    path = folder / f"{text.replace(' ', '')}.jsonl"
    rows = [{"pair_id": f"Natural/{number}", "question_id": number, "pred_text": text, **fields} for number in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_judge_is_judged_from_the_original_file(
    laboratory_checkpoint: Path, llmbar: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "out"
    judge = (f"--model={laboratory_checkpoint}", "--dtype=float32")
    arguments = ("--name=llmbar", f"--data={llmbar}", f"--output={output}", *judge)
    assert run_benchmark(*arguments, "--limit=2") == 0
    rows = read(output / "judgments.jsonl")
    assert [(row["pair_id"], row["order"]) for row in rows] == [("Natural/0", "both"), ("Natural/1", "both")]
    labels = [row["winner"] for row in read(output / "labels.jsonl")]
    right = [
        (row["forward"]["winner"] == label) + (row["reversed"]["winner"] == label)
        for row, label in zip(rows, labels, strict=True)
    ]
    assert json.loads((output / "metrics.json").read_text())["score"] == pytest.approx(sum(right) / 4)
    assert run_benchmark(*arguments, "--limit=2", "--resume") == 0
    assert read(output / "judgments.jsonl") == rows
    capsys.readouterr()
    assert "exists already" in refusal(capsys, *arguments)


def test_flags_that_do_not_go_together_are_refused(llmbar: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    base = ("--name=llmbar", f"--data={llmbar}", f"--output={tmp_path / 'o'}")
    assert "--name is missing" in refusal(capsys)
    assert "either --model" in refusal(capsys, *base)
    assert "either --model" in refusal(capsys, *base, "--model=m", f"--predictions={llmbar}")
    assert "llmbar knows average, both_right, one_order" in refusal(capsys, *base, "--predictions=x", "--protocol=no")
    assert "llmbar knows label" in refusal(capsys, *base, "--predictions=x", "--reduction=majority")
    assert "brings its answers" in refusal(capsys, *base, "--predictions=x", "--answers=y")
    assert "nowhere: no such file" in refusal(capsys, *base[:1], "--data=nowhere", *base[2:], "--predictions=x")
    assert "x.jsonl" in refusal(capsys, *base, "--predictions=x.jsonl")
    assert not (tmp_path / "o").exists()


def test_a_report_begins_with_the_benchmarks_own_result(llmbar: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ("--name=llmbar", f"--data={llmbar}", f"--predictions={_ours(llmbar, tmp_path, '9 1')}", "--protocol=one_order")
    report = tmp_path / "report"
    assert run_benchmark(*flags, f"--output={tmp_path / 'o'}", f"--report={report}") == 0
    text = (report / "report.md").read_text()
    assert "score 50.00 %" in text
    assert "LLMBar" in text
    assert (report / "index.html").stat().st_size > 10_000
    capsys.readouterr()
    assert f"{report}" in refusal(capsys, *flags, f"--output={tmp_path / 'p'}", f"--report={report}")
    assert not (tmp_path / "p").exists()


def test_what_does_not_go_with_a_benchmark_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    data, answers = tmp_path / "mm-vet.json", tmp_path / "m.json"
    data.write_text(json.dumps({"v1": {"question": "q", "answer": "a", "capability": ["ocr"]}}))
    answers.write_text('{"v1": "x"}')
    base = ("--name=mm_vet", f"--data={data}", f"--output={tmp_path / 'o'}")
    assert "give the answers to judge with --answers" in refusal(capsys, *base, "--model=m")
    assert "it goes with --kind=pair" in refusal(capsys, *base, "--model=m", f"--answers={answers}", "--preset=pandalm")
    assert "there is one for pairs" in refusal(capsys, *base, "--predictions=p", f"--report={tmp_path / 'r'}")
    assert not (tmp_path / "o").exists()


def test_the_list_names_every_protocol_and_reduction(capsys: pytest.CaptureFixture) -> None:
    assert run_benchmark("--list") == 0
    shown = capsys.readouterr().out
    for row in benchmark.BENCHMARKS.values():
        assert row.name in shown
        assert all(f"--protocol={name}: " in shown for name in row.protocols)
        assert all(f"--reduction={name}: " in shown for name in row.reductions)


def test_scoring_imports_no_jax(llmbar: Path, tmp_path: Path) -> None:
    predictions = _ours(llmbar, tmp_path, "9 1")
    code = (
        "import sys; from judgelm_jax.commands import benchmark as b; from judgelm_jax.commands.command_line import run;"
        f"assert run(b.main, b.FLAGS, 'benchmark', ['--name=llmbar', '--data={llmbar}', '--predictions={predictions}',"
        f"'--protocol=one_order', '--output={tmp_path / 'o'}']) == 0; assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
