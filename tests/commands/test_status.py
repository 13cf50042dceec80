"""`judgelm-status`, whose path may stand alone."""

import json
from pathlib import Path

import pytest
from judge_command import write

from judgelm_jax.commands import status


def judged(folder: Path) -> Path:
    rows = [{"question_id": number, "status": "ok" if number else "unparsed", "order": "forward"} for number in range(3)]
    return write(folder / "judgments.jsonl", [row | {"winner": 1, "scores": [2.0, 1.0]} for row in rows])


@pytest.mark.parametrize("flag", ["", "--path="])
def test_it_says_how_far_a_run_is(
    flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    target, summary = judged(tmp_path), tmp_path / "status.json"
    monkeypatch.setattr("sys.argv", ["judgelm-status", f"{flag}{target}", f"--json={summary}"])
    assert status.entry() == 0
    assert capsys.readouterr().out == f"judging {target}: 3 of 3 records, 1 failed; complete\n"
    found = json.loads(summary.read_text())
    assert (found["command"], found["done"], found["failed"], found["complete"]) == ("status", 3, 1, True)


@pytest.mark.parametrize(
    ("path", "said"),
    [("nowhere", "nowhere: no run writes there"), ("s3://b/run", "s3://b/run: runs in an object store cannot")],
)
def test_what_is_no_run_is_one_line(
    path: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["judgelm-status", path])
    assert status.entry() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"judgelm-status: {said}")
