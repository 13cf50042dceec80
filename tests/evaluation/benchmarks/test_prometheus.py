"""Prometheus: the real graded answers, and the layouts of its preference and feedback benches."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_files import score, summary_of, write_json, write_lines
from scipy import stats

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.prometheus import BENCHMARK, read_predictions, read_prometheus

PROMPT = (
    "###Task Description:\nT\n\n###The instruction to evaluate:\nI\n\n###Response to evaluate:\n{response}\n\n"
    "###Reference Answer (Score 5):\nR\n\n###Score Rubrics:\n[C]\nScore 1: bad\n\n###Feedback: "
)


def graded(rows: list) -> list[dict]:
    return [{**record, "pred_text": "", "status": "ok", "scores": [value]} for record, value in rows]


def test_the_real_file_is_read_section_by_section(shared: Path) -> None:
    path = shared / "data/benchmarks/prometheus"
    loaded = read_prometheus(path)
    raw = json.loads((path / "vicuna_eval.json").read_text(encoding="utf-8"))
    assert (loaded.kind, len(loaded.records)) == ("single", 320)
    for record, label, item in zip(loaded.records, loaded.labels, raw, strict=True):
        parts = (record["question_body"], record["answer1_body"], record["reference"]["text"], record["rubric"])
        assert all(part and part in item["instruction"] for part in parts)
        assert not any("###" in part for part in parts)
        assert label["score"] == pytest.approx(np.mean(item["gpt4_score"]))


def test_correlations_are_those_of_scipy(shared: Path) -> None:
    loaded = read_prometheus(shared / "data/benchmarks/prometheus")
    random = np.random.default_rng(0)
    grades = np.array([label["score"] for label in loaded.labels])
    predicted = np.round(grades + random.normal(0, 1, size=len(grades)))
    rows = graded(list(zip(loaded.records, predicted.tolist(), strict=True))[:-20])
    summary = summary_of(BENCHMARK, loaded, rows)
    kept = slice(None, -20)
    assert summary["score"] == pytest.approx(stats.pearsonr(predicted[kept], grades[kept]).statistic)
    assert summary["spearman"] == pytest.approx(stats.spearmanr(predicted[kept], grades[kept]).statistic)
    assert summary["kendall"] == pytest.approx(stats.kendalltau(predicted[kept], grades[kept]).statistic)
    assert (summary["total"], summary["coverage"]["missing"]) == (300, 20)
    low, high = summary["score_interval"]
    assert low < summary["score"] < high
    raw = json.loads((shared / "data/benchmarks/prometheus/vicuna_eval.json").read_text(encoding="utf-8"))
    one, two, three = zip(*(map(float, item["gpt4_score"]) for item in raw), strict=True)
    pairs = [(one, np.add(two, three)), (two, np.add(one, three)), (three, np.add(one, two))]
    assert summary["graders"] == pytest.approx(np.mean([stats.pearsonr(*pair).statistic for pair in pairs]))


def test_a_grade_that_never_changes_correlates_with_nothing(shared: Path) -> None:
    loaded = read_prometheus(shared / "data/benchmarks/prometheus")
    summary = summary_of(BENCHMARK, loaded, graded([(record, 3) for record in loaded.records]))
    assert (summary["score"], summary["spearman"], summary["kendall"]) == (None, None, None)


def test_a_response_may_quote_headings(tmp_path: Path) -> None:
    response = "x ###Score Rubrics: y ###Reference Answer (Score 5): z"
    item = {"idx": 1, "response_source": "m", "gpt4_score": [3, 4, 5], "instruction": PROMPT.format(response=response)}
    loaded = read_prometheus(write_json(tmp_path / "mt_bench_eval.json", [item]))
    record = loaded.records[0]
    assert (record["answer1_body"], record["reference"]["text"], record["rubric"]) == (response, "R", "[C]\nScore 1: bad")
    assert loaded.labels[0]["score"] == 4


def test_preferences_are_pairs(tmp_path: Path) -> None:
    base = {"orig_instruction": "I", "orig_response_A": "a", "orig_response_B": "b"}
    items = [base | {"orig_reference_answer": "R", "orig_criteria": "C", "orig_preference": name} for name in "ABA"]
    loaded = read_prometheus(write_lines(tmp_path / "preference_bench.jsonl", *items))
    assert (loaded.kind, [label["winner"] for label in loaded.labels]) == ("pair", [1, 2, 1])
    assert loaded.records[0]["reference"] == {"text": "R"}
    assert score(BENCHMARK, loaded, [(1,), (1,), (0,)])["score"] == pytest.approx(1 / 3)
    assert score(BENCHMARK, loaded, [(1, 1), (2, 2), (1, 2)], "both_orders")["score"] == pytest.approx(2 / 3)


def test_feedback_is_graded_answers(tmp_path: Path) -> None:
    base = {"orig_instruction": "I", "orig_response": "a", "orig_reference_answer": "R", "orig_criteria": "C"}
    loaded = read_prometheus(write_lines(tmp_path / "f.jsonl", base | {"orig_score": "4"}, base | {"orig_score": 1}))
    assert (loaded.kind, [label["score"] for label in loaded.labels]) == ("single", [4, 1])
    assert summary_of(BENCHMARK, loaded, graded(list(zip(loaded.records, (9, 2), strict=True))))["score"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gpt4_score": []}, "grades are"),
        ({"gpt4_score": [6]}, "grades are"),
        ({"gpt4_score": [True]}, "grades are"),
        ({"instruction": "###The instruction to evaluate: I"}, "sections"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, wrong: dict, message: str) -> None:
    item = {"idx": 1, "response_source": "m", "gpt4_score": [3], "instruction": PROMPT.format(response="r")}
    path = write_json(tmp_path / "v.json", [item, item | {"idx": 2} | wrong])
    with pytest.raises(InputError, match=f"item 1: .*{message}"):
        read_prometheus(path)


BARE = PROMPT.replace("###Reference Answer (Score 5):\nR\n\n", "")


def test_a_prompt_may_have_no_reference_answer(tmp_path: Path) -> None:
    """Many prompts of `mt_bench_eval.json` have none."""
    base = {"idx": 81, "response_source": "m", "gpt4_score": [5, 5, 5]}
    items = [base | {"instruction": BARE.format(response="r")}, base | {"idx": 82, "instruction": PROMPT.format(response="r")}]
    bare, whole = read_prometheus(write_json(tmp_path / "mt_bench_eval.json", items)).records
    assert "reference" not in bare
    assert whole["reference"] == {"text": "R"}
    assert (bare["question_body"], bare["answer1_body"], bare["rubric"]) == ("I", "r", "[C]\nScore 1: bad")


def test_pairs_inside_prompts_hide_which_answer_is_the_chosen_one(tmp_path: Path) -> None:
    """`hhh_alignment_eval.json` and others: two prompts an item, alike but for the response."""
    items = [
        {
            "source": "honest",
            "chosen_instruction": BARE.format(response=f"good {n}"),
            "rejected_instruction": BARE.format(response=f"bad {n}"),
        }
        for n in range(60)
    ]
    loaded = read_prometheus(write_json(tmp_path / "hhh_alignment_eval.json", [*items, items[0] | {"tie": 1}]))
    winners = [label["winner"] for label in loaded.labels]
    assert (loaded.kind, winners[-1]) == ("pair", 0)
    assert 10 < winners.count(1) < 50
    for n, (record, winner) in enumerate(zip(loaded.records[:60], winners[:60], strict=True)):
        assert (record[f"answer{winner}_body"], record[f"answer{3 - winner}_body"]) == (f"good {n}", f"bad {n}")


def test_what_the_program_writes_is_predictions_of_answers(tmp_path: Path) -> None:
    """Its items again, with three runs' grades; one that did not parse is null."""
    items = [
        {"idx": n, "response_source": "m", "gpt4_score": [n, n, n], "instruction": PROMPT.format(response=f"r{n}")}
        for n in (1, 2, 3, 4)
    ]
    loaded = read_prometheus(write_json(tmp_path / "vicuna_eval.json", items))
    grades = [[1, 2, 3], [2, None, 3], [4, 4, 4], [None, None, None]]
    rows = [
        item | {"prometheus_output": ["so"] * 3, "prometheus_score": grade} for item, grade in zip(items, grades, strict=True)
    ]
    judgments = read_predictions([write_lines(tmp_path / "vicuna_eval_a2a_temp1.0_output.json", *reversed(rows))], loaded)
    judgments.reverse()
    assert [row["scores"] for row in judgments] == [[2], [2.5], [4], None]
    assert judgments[0]["pred_text"] == "so"
    summary = summary_of(BENCHMARK, loaded, judgments)
    assert summary["score"] == pytest.approx(stats.pearsonr([2, 2.5, 4], [1, 2, 3]).statistic)
    assert (summary["coverage"]["ok"], summary["coverage"]["unparsed"]) == (3, 1)


def test_what_the_program_writes_is_predictions_of_pairs(tmp_path: Path) -> None:
    """A and B as that run drew them; relative grading names one, absolute grading grades the chosen and the rejected one."""
    base = {"orig_instruction": " I\n", "orig_reference_answer": "R", "orig_criteria": "C"}
    data = [base | {"orig_response_A": f"a{n}", "orig_response_B": f"b{n}", "orig_preference": "A"} for n in range(6)]
    loaded = read_prometheus(write_lines(tmp_path / "preference_bench.jsonl", *data))
    turned = {"orig_response_A": "b1", "orig_response_B": "a1"}
    rows = [
        data[0] | {"prometheus_score": ["A"]},
        data[1] | turned | {"prometheus_score": ["A"]},
        data[2] | {"prometheus_score": ["TIE"]},
        data[3] | {"prometheus_score": [None]},
        data[4] | {"prometheus_score": [[3, 5], [3, 2]], "chosen": "A"},
        data[5] | {"prometheus_score": [[4], [2]], "chosen": "B"},
    ]
    judgments = read_predictions([write_lines(tmp_path / "r.json", *rows)], loaded)
    assert [row["winner"] for row in judgments] == [1, 2, 0, None, 1, 2]
    assert summary_of(BENCHMARK, loaded, judgments)["score"] == pytest.approx(2 / 6)
    with pytest.raises(InputError, match=r"r\.json:2: its texts are no item"):
        read_predictions([write_lines(tmp_path / "r.json", rows[0], rows[0])], loaded)
