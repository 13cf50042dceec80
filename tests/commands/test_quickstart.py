"""The quickstart, with a training too short to learn much: every command runs and the last line says what chance would give."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from sklearn.dummy import DummyClassifier

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.commands import convert, quickstart
from judgelm_jax.commands.command_line import run
from judgelm_jax.verdicts.score_lines import winner_of


def run_quickstart(*arguments: object) -> int:
    return run(quickstart.main, quickstart.FLAGS, "quickstart", [str(argument) for argument in arguments])


def interrupted() -> None:
    raise KeyboardInterrupt


def test_it_trains_exports_judges_and_says_what_chance_would_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "quickstart"
    summary = tmp_path / "summary.json"
    same = (f"--output={folder}", "--steps=3", "--questions=14")
    with monkeypatch.context() as patch:
        patch.setattr(convert, "main", interrupted)
        with pytest.raises(SystemExit) as ended:
            run_quickstart(*same)
    assert ended.value.code == 130
    assert capsys.readouterr().err.endswith("judgelm-quickstart: the same command goes on\n")

    # What was ended goes on with the same command.
    assert run_quickstart(*same, f"--json={summary}") == 0
    printed = capsys.readouterr().out
    assert "3 of them before" in printed
    commands = re.findall(r"^\$ judgelm-(\w+)", printed, re.MULTILINE)
    assert commands == ["train", "convert", "convert", "prepare", "judge", "evaluate", "rank"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["total"] == metrics["pairs"] == 42
    labels = [winner_of(json.loads(line)["score"]) for line in (folder / "labels.jsonl").read_text().splitlines()]
    agreement, guessing, constant = map(float, re.findall(r"([\d.]+) %", printed.splitlines()[-2]))
    assert agreement == pytest.approx(100 * metrics["agreement"], abs=0.05)
    assert json.loads(summary.read_text())["agreement"] == metrics["agreement"]
    places = [[0]] * len(labels)
    assert constant == pytest.approx(
        100 * DummyClassifier(strategy="most_frequent").fit(places, labels).score(places, labels), abs=0.05
    )
    assert guessing == pytest.approx(sum(100 * (count / 42) ** 2 for count in Counter(labels).values()), abs=0.05)
    assert printed.splitlines()[-1].startswith(f"Open {folder / 'report/index.html'} ")
    assert "Ranking" in (folder / "report/index.html").read_text()
    assert {model["name"] for model in json.loads((folder / "ranking.json").read_text())["models"]} == {
        "amber",
        "birch",
        "cedar",
    }
    # Both forms of the judge have the trained weights.
    assert open_checkpoint(str(folder / "judge")).config == open_checkpoint(str(folder / "judge-hf")).config
    # The same command goes on, and nothing goes that it did not make.
    (folder / "notes.txt").write_text("mine")
    judgments = (folder / "judgments.jsonl").read_bytes()
    assert run_quickstart(*same) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (folder / "judgments.jsonl").read_bytes() == judgments
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert (folder / "notes.txt").read_text() == "mine"
    other = tmp_path / "mine"
    other.mkdir()
    (other / "notes.txt").touch()
    for arguments, says in (
        ((*same, f"--json={summary}"), "exists already"),
        ((f"--output={folder}", "--steps=4"), "of another --questions, --steps or --seed; choose another --output"),
        ((f"--output={other}",), "choose another --output"),
    ):
        assert run_quickstart(*arguments) == 2
        assert says in capsys.readouterr().err
    assert (folder / "judgments.jsonl").read_bytes() == judgments


@pytest.mark.slow
@pytest.mark.optimized
def test_the_judge_of_the_quickstart_has_learned(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run_quickstart(f"--output={tmp_path / 'quickstart'}") == 0
    metrics = json.loads((tmp_path / "quickstart/metrics.json").read_text())
    assert metrics["agreement"] > 0.9
    assert metrics["consistency"] > 0.9
    ranking = json.loads((tmp_path / "quickstart/ranking.json").read_text())
    assert [model["name"] for model in ranking["models"]] == ["amber", "birch", "cedar"]  # as often as they are right
    assert ranking["above"]["amber"]["cedar"] > 0.975
