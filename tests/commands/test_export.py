"""The `export` command, from its arguments to its file and exit codes."""

import json
from pathlib import Path

import pytest

from judgelm_jax.commands import export
from judgelm_jax.commands.command_line import run


@pytest.fixture
def judgments(tmp_path: Path) -> Path:
    rows = [
        {"question_id": number, "pred_text": "9 1", "status": "ok", "winner": winner, "scores": scores, "order": "forward"}
        for number, (winner, scores) in enumerate([(1, [9, 1]), (None, None)])
    ]
    path = tmp_path / "j.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_export(*arguments: object) -> int:
    return run(export.main, export.FLAGS, "export", [str(argument) for argument in arguments])


def test_the_file_is_written_and_counted(judgments: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output, counts = tmp_path / "b.jsonl", tmp_path / "c.json"
    assert run_export(f"--judgments={judgments}", "--format=lmarena", f"--output={output}", f"--json={counts}") == 0
    assert [json.loads(line)["winner"] for line in output.read_text().splitlines()] == ["model_a"]
    assert json.loads(counts.read_text()) == {"judgments": 2, "written": 1, "without_verdict": 1}
    assert "2 judgments, 1 of them without a verdict, give 1 rows of lmarena" in capsys.readouterr().out


def test_what_is_wrong_is_one_line_and_writes_nothing(judgments: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "b.jsonl"
    for arguments, message in (
        ((f"--judgments={judgments}", f"--output={output}"), "--format"),
        ((f"--judgments={judgments}", "--format=xml", f"--output={output}"), "xml"),
        ((f"--judgments={tmp_path / 'no'}", "--format=csv", f"--output={output}"), "no: "),
        ((f"--judgments={judgments}", "--format=csv", f"--output={judgments}", "--overwrite"), "j.jsonl"),
    ):
        assert run_export(*arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert error.startswith("judgelm-export: ")
        assert message in error
    assert not output.exists()


@pytest.mark.parametrize("form", ["alpaca_eval", "mt_bench", "arena_hard", "lmarena", "inspect_ai"])
def test_whole_numbers_that_pandas_made_floats_are_the_same_rows(judgments: Path, tmp_path: Path, form: str) -> None:
    rows = [json.loads(line) for line in judgments.read_text().splitlines()]
    for row in rows:
        row["question_id"], row["winner"] = float(row["question_id"]), row["winner"] and float(row["winner"])
    floats, written = tmp_path / "floats.jsonl", []
    floats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for source in (judgments, floats):
        output = tmp_path / f"{source.stem}.{form}"
        assert run_export(f"--judgments={source}", f"--format={form}", f"--output={output}") == 0
        text = output.read_text()
        written.append(json.loads(text) if form == "alpaca_eval" else [json.loads(line) for line in text.splitlines()])
    assert written[0] == written[1] != []
