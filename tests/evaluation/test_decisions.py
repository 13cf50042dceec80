"""Mean, mode and winner of distributions, held against counting by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from judgelm_jax.commands import evaluate
from judgelm_jax.commands.command_line import run
from judgelm_jax.evaluation.decisions import compare_decisions, join_decisions
from judgelm_jax.evaluation.joining import Fields
from judgelm_jax.evaluation.statistics import difference_interval


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, np.ndarray]:
    """40 records of 20 questions with random decisions: labels, judgments, and of each whether mean, mode, winner are right."""
    random = np.random.default_rng(1)
    labels, rows, right = [], [], []
    scores = {1: [7.0, 3.0], 2: [3.0, 7.0], 0: [5.0, 5.0]}
    for number in range(40):
        label, mean, mode, winner = (int(value) for value in random.integers(0, 3, 4))
        mean = label if number % 2 else mean
        ids = {"pair_id": number, "question_id": number // 2}
        labels.append(ids | {"winner": label})
        probabilities = {"1": 0.2, "0": 0.2, "2": 0.6}
        rows.append(
            ids | {"pred_text": "", "status": "ok", "winner": winner, "scores": scores[mode], "expected_scores": scores[mean],
                   "probabilities": probabilities}
        )  # fmt: skip
        right.append([mean == label, mode == label, winner == label])
    return write(tmp_path / "l.jsonl", labels), write(tmp_path / "j.jsonl", rows), np.array(right, float)


def test_decisions_are_compared_record_by_record(files: tuple[Path, Path, np.ndarray]) -> None:
    labels, judgments, right = files
    summary = compare_decisions(join_decisions(labels, judgments, None, Fields()), "wrong")
    mean, mode, winner = right.mean(axis=0)
    assert [summary[name] for name in ("mean", "mode", "winner")] == pytest.approx([mean, mode, winner])
    assert summary["mean_minus_mode"] == pytest.approx(mean - mode)
    assert summary["mode_minus_winner"] == pytest.approx(mode - winner)
    for name in ("mean", "mode", "winner", "mean_minus_mode", "mean_minus_winner", "mode_minus_winner"):
        low, high = summary[f"{name}_interval"]
        assert low < summary[name] < high
    assert 0 < summary["mean_minus_winner_p"] <= 1
    by_question = difference_interval(right[:, 0] - right[:, 1], [number // 2 for number in range(40)])
    assert summary["mean_minus_mode_interval"] == by_question


def test_evaluate_says_it_where_there_are_distributions_and_labels(
    files: tuple[Path, Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    labels, judgments, right = files
    arguments = [f"--labels={labels}", f"--predictions={judgments}", f"--json={tmp_path / 's.json'}", "--overwrite"]
    assert run(evaluate.main, evaluate.FLAGS, "evaluate", arguments) == 0
    assert "mean_minus_winner" in capsys.readouterr().out
    assert json.loads((tmp_path / "s.json").read_text())["decisions"]["mean"] == pytest.approx(right[:, 0].mean())
    plain = [json.loads(line) for line in judgments.read_text().splitlines()]
    del plain[3]["expected_scores"]  # one without a distribution
    write(judgments, plain)
    assert run(evaluate.main, evaluate.FLAGS, "evaluate", arguments) == 0
    assert "mean_minus_winner" not in capsys.readouterr().out
