"""The `evaluate` command, from its arguments to its table, summary and exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from judgelm_jax.commands import evaluate, rank
from judgelm_jax.commands.command_line import run


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run_evaluate(*arguments: object) -> int:
    evaluate.FLAGS.unparse_flags()
    for name in evaluate.FLAGS:
        evaluate.FLAGS[name].unparse()
    return run(evaluate.main, evaluate.FLAGS, "evaluate", [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    labels = write(tmp_path / "l.jsonl", *({"question_id": number, "winner": 1} for number in range(4)))
    texts = ["9 1", "1 9", "no", "8, 2"]
    predictions = write(tmp_path / "p.jsonl", *({"question_id": n, "pred_text": text} for n, text in enumerate(texts)))
    return [f"--labels={labels}", f"--predictions={predictions}"]


def test_the_published_numbers_come_out_of_the_command(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    golden, summary = shared / "contract/metrics_golden", tmp_path / "m.json"
    paths = [f"--labels={golden / 'gt.jsonl'}", f"--predictions={golden / 'forward.jsonl'}"]
    assert (
        run_evaluate(*paths, f"--reversed_predictions={golden / 'reversed.jsonl'}", "--parser=upstream", f"--json={summary}")
        == 0
    )
    values = json.loads(summary.read_text())
    expected = json.loads((golden / "expected_upstream.json").read_text())
    assert values["agreement"] == pytest.approx(expected["accuracy"], abs=1e-12)
    assert values["consistency"] == pytest.approx(expected["consistency"], abs=1e-12)
    assert values["total"] == expected["total_num"]
    assert [len(values[f"{name}_interval"]) for name in ("agreement", "f1", "delta_bias", "total_bias")] == [2, 2, 2, 2]
    table = capsys.readouterr().out
    assert f"{expected['accuracy']:.4f}" in table
    assert "labels_dropped 12" in table


@pytest.mark.parametrize(
    ("flag", "agreement", "total"), [([], 0.5, 4), (["--unparsed=exclude"], 2 / 3, 3), (["--unparsed=tie"], 0.5, 4)]
)
def test_the_policy_for_what_does_not_parse_is_a_flag(
    files: list[str], tmp_path: Path, flag: list[str], agreement: float, total: int
) -> None:
    assert run_evaluate(*files, *flag, f"--json={tmp_path / 'm.json'}") == 0
    summary = json.loads((tmp_path / "m.json").read_text())
    assert (summary["agreement"], summary["total"], summary["unparsed"]) == (pytest.approx(agreement), total, 1)


def test_labels_without_a_prediction_are_reported(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    predictions = write(tmp_path / "short.jsonl", {"question_id": 0, "pred_text": "9 1"})
    assert run_evaluate(files[0], f"--predictions={predictions}") == 0
    captured = capsys.readouterr()
    assert "missing 3" in captured.out
    assert "3 labels without a prediction" in captured.err


def refusal(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line on stderr of a run that must end with exit code 2."""
    assert run_evaluate(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_what_the_user_can_mend_ends_with_code_2_and_one_line(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question_id": 1, "pred_text": "1 2"}\n{"question_id"\n')
    assert "broken.jsonl:2: " in refusal(capsys, files[0], f"--predictions={broken}")
    assert "nowhere.jsonl" in refusal(capsys, files[0], "--predictions=nowhere.jsonl")
    assert "predictions" in refusal(capsys, files[0])
    assert "--cluster" in refusal(capsys, *files, "--cluster=nowhere")
    assert "--by" in refusal(capsys, *files, "--by=nowhere")
    assert "--decide" in refusal(capsys, *files, "--parser=upstream", "--decide=mean")
    assert "p.jsonl:1: --decide=mean" in refusal(capsys, *files, "--decide=mean")
    assert "nope" in refusal(capsys, *files, "--nope=1")
    assert "upstream" in refusal(capsys, *files, "--parser=upstream", "--unparsed=wrong")
    kept = tmp_path / "m.json"
    kept.write_text("precious")
    assert "--overwrite" in refusal(capsys, *files, f"--json={kept}")
    assert "l.jsonl" in refusal(capsys, *files, f"--json={tmp_path / 'l.jsonl'}", "--overwrite")
    assert kept.read_text() == "precious"
    assert run_evaluate(*files, f"--json={kept}", "--overwrite") == 0


def test_help_explains_every_flag_and_ends_with_code_0() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from judgelm_jax.commands.evaluate import entry; raise SystemExit(entry())", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0
    assert all(f"--{name}: " in result.stdout for name in evaluate.FLAGS)


def records(path: Path, winners: list[int], **fields: object) -> Path:
    """Judgments as `judge --orders=both` writes them, two records a question, by two models in two groups."""
    rows = []
    for number, winner in enumerate(winners):
        one = {"pred_text": "x", "status": "ok", "winner": winner}
        rows.append(
            {
                "question_id": number // 2,
                "pair_id": number,
                "answer1_body": "long answer",
                "answer2_body": "short",
                "answer1_model_id": "a",
                "answer2_model_id": "b",
                "metadata": {"topic": "sea" if number % 4 < 2 else "sky"},
                **one,
                "order": "both",
                "forward": one,
                "reversed": one | {"winner": 1},
                **fields,
            }
        )
    return write(path, *rows)


def test_without_labels_there_are_consistency_and_wins_by_question_and_group(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    judgments = records(tmp_path / "j.jsonl", [1, 1, 2, 1] * 10)
    target = tmp_path / "m.json"
    assert run_evaluate(f"--predictions={judgments}", "--by=metadata.topic", f"--json={target}") == 0
    summary = json.loads(target.read_text())
    assert (summary["consistency"], summary["first_wins"], summary["tie_rate"]) == (0.75, 0.75, 0.0)
    assert (summary["total"], summary["clusters"]) == (40, 20)
    assert summary["models"]["a"]["win_rate"] == 0.75
    assert {name: group["consistency"] for name, group in summary["groups"].items()} == {"sea": 1.0, "sky": 0.5}
    assert {name: group["clusters"] for name, group in summary["groups"].items()} == {"sea": 10, "sky": 10}
    assert "agreement" not in summary
    text = capsys.readouterr().out
    assert text.startswith("With the answers exchanged it names the same winner in 75.0 % of 40 pairs")
    assert "Intervals are by question_id: 20 clusters among 40 records" in text


def test_a_judge_is_compared_with_another_and_with_trivial_ones(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    labels = write(
        tmp_path / "l.jsonl", *({"pair_id": n, "question_id": n // 2, "winner": 1 + (n % 4 == 2)} for n in range(40))
    )
    one, other = records(tmp_path / "a.jsonl", [1, 1, 2, 1] * 10), records(tmp_path / "b.jsonl", [1, 1, 1, 1] * 10)
    target = tmp_path / "m.json"
    command = [f"--labels={labels}", f"--predictions={one}", f"--against={other}", f"--json={target}"]
    assert run_evaluate(*command) == 0
    summary = json.loads(target.read_text())
    assert (summary["agreement"], summary["against"]["agreement_other"], summary["against"]["difference"]) == (1, 0.75, 0.25)
    assert summary["against"]["mcnemar_p"] == pytest.approx(2 / 2**10)
    assert summary["baselines"]["always_first"] == summary["baselines"]["longer_answer"] == 0.75
    assert summary["confusion"]["2"] == {"1": 0, "2": 10, "0": 0, "none": 0}
    text = capsys.readouterr().out
    assert "better than the best judge that does not read, 'always_first': 75.0 %" in text
    assert "+25.0 points" in text
    by_pair = run_evaluate(*command, "--cluster=pair_id", "--overwrite")
    assert (by_pair, json.loads(target.read_text())["clusters"]) == (0, 40)


def test_a_file_without_the_cluster_field_says_so(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    labels = write(tmp_path / "l.jsonl", *({"pair_id": n, "winner": 1} for n in range(5)))
    predictions = write(tmp_path / "p.jsonl", *({"pair_id": n, "pred_text": "9 1"} for n in range(5)))
    assert run_evaluate(f"--labels={labels}", f"--predictions={predictions}") == 0
    assert "none has the field 'question_id'" in capsys.readouterr().out


def test_few_labels_and_a_wished_risk_are_said_in_plain_words(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    winners = [1 + (number * 7919 % 10 < 4) for number in range(2000)]
    judgments = records(tmp_path / "j.jsonl", winners, scores=[8, 3])
    labels = write(tmp_path / "l.jsonl", *({"pair_id": n, "winner": winners[n] if n % 25 else 1} for n in range(0, 2000, 4)))
    target = tmp_path / "m.json"
    command = [f"--labels={labels}", f"--predictions={judgments}", f"--json={target}"]
    assert run_evaluate(*command, "--risk=0.1", "--width=0.02") == 0
    summary = json.loads(target.read_text())
    assert (summary["few_labels"]["labelled"], summary["few_labels"]["unlabelled"]) == (500, 1500)
    assert summary["few_labels"]["first_wins_worth"] > 1.5
    assert summary["few_labels"]["first_wins_labels_needed"] > 500
    assert (summary["risk"]["signal"], summary["risk"]["coverage"]) == ("score_gap", 1.0)
    text = capsys.readouterr().out
    assert "your judge is worth ×" in text
    assert "wrong in at most 10.0 %" in text
    assert run_evaluate(*command, "--risk=2", "--overwrite") == 2
    assert run_evaluate(command[1], "--risk=0.1") == 2


def test_labels_that_are_all_out_of_range_are_none(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    labels = write(tmp_path / "l.jsonl", *({"question_id": number, "winner": 3} for number in range(4)))
    assert run_evaluate(*files, f"--json={tmp_path / 'm.json'}") == 2
    assert f"{labels}: all 4 labels are out of range; a winner is 0, 1 or 2" in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()


def test_judgments_without_any_verdict_have_a_report_and_no_ranking(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    record = {"question_body": "q", "answer1_body": "a", "answer2_body": "b", "pred_text": "?", "status": "unparsed"}
    models = {"answer1_model_id": "alpha", "answer2_model_id": "beta", "scores": None, "winner": None, "order": "forward"}
    path = write(tmp_path / "p.jsonl", *({"question_id": number, **record, **models} for number in range(3)))
    assert run_evaluate(f"--predictions={path}", f"--report={tmp_path / 'report'}") == 0
    page = (tmp_path / "report/index.html").read_text()
    assert "3 records" in page
    assert "Ranking" not in page
    assert run(rank.main, rank.FLAGS, "rank", [f"--judgments={path}", f"--output={tmp_path / 'r.json'}"]) == 2
    assert f"{path}: no judgment has a verdict (3 without one); a ranking needs decided ones" in capsys.readouterr().err
