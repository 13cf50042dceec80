"""PandaLM's original files, and files that are not."""

import json
from pathlib import Path

import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.pandalm import BENCHMARK, read_pandalm, read_predictions
from judgelm_jax.evaluation.benchmarks.scoring import summarize_benchmark
from judgelm_jax.records.json_lines import dump_line
from judgelm_jax.records.records import check_records

ITEM = {
    "idx": 3,
    "motivation_app": "Mail",
    "cmp_key": "bloom-7b_cerebras-gpt-6.7B",
    "instruction": "Do it.",
    "input": "With this.",
    "response1": "one",
    "response2": "two",
    "annotator1": 1,
    "annotator2": 2,
    "annotator3": 2,
}


def write(path: Path, *items: object) -> Path:
    path.write_text(json.dumps(items))
    return path


def test_the_original_file_has_the_published_label_counts(shared: Path) -> None:
    loaded = read_pandalm(shared / "data/benchmarks/pandalm")
    winners = [label["winner"] for label in loaded.labels]
    assert (len(winners), winners.count(1), winners.count(2), winners.count(0)) == (999, 422, 472, 105)
    assert loaded.counts == {"converted": 6, "without_majority": 0}
    assert [(row["question_id"], row["pair_id"]) for row in loaded.records] == [
        (row["question_id"], row["pair_id"]) for row in loaded.labels
    ]
    assert sum(row["answer1_body"] == "true" for row in loaded.records) >= 4


def test_pairs_of_one_question_share_its_id(shared: Path) -> None:
    path = shared / "data/benchmarks/pandalm/testset-v1.json"
    items = json.loads(path.read_text(encoding="utf-8"))
    loaded = read_pandalm(path)
    questions = {(item["instruction"], item["input"]) for item in items}
    assert len({row["question_id"] for row in loaded.records}) == len(questions) == 170
    by_text: dict = {}
    for item, row in zip(items, loaded.records, strict=True):
        assert by_text.setdefault((item["instruction"], item["input"]), row["question_id"]) == row["question_id"]
        assert row["pair_id"] == item["idx"]


def test_its_records_pass_the_check_of_the_judge(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    rows = read_pandalm(shared / "data/benchmarks/pandalm/testset-v1.json").records
    path.write_text("".join(dump_line(row) + "\n" for row in rows), encoding="utf-8")
    assert check_records(path).records == 999


@pytest.mark.parametrize(
    ("name", "agreement", "f1"),
    [("gpt-3.5-turbo-testset-v1.json", 0.6977, None), ("pandalm-7b-testset-v1.json", 0.6677, 0.5743)],
)
def test_published_predictions_score_as_published(shared: Path, name: str, agreement: float, f1: float | None) -> None:
    folder = shared / "data/benchmarks/pandalm"
    loaded = read_pandalm(folder)
    rows = read_predictions([folder / name], loaded)
    summary = summarize_benchmark(BENCHMARK, loaded, rows, reduction="majority", protocol="one_order")
    assert round(summary["score"], 4) == round(summary["metrics"]["agreement"], 4) == agreement
    assert (summary["total"], summary["questions"]) == (999, 170)
    if f1 is not None:
        assert round(summary["metrics"]["f1"], 4) == f1
    published = {(baseline["metric"], round(baseline["value"], 4)) for baseline in summary["baselines"]}
    assert ("agreement", agreement) in published


def test_pairs_of_one_question_widen_the_interval(shared: Path) -> None:
    folder = shared / "data/benchmarks/pandalm"
    loaded = read_pandalm(folder)
    rows = read_predictions([folder / "gpt-3.5-turbo-testset-v1.json"], loaded)
    summary = summarize_benchmark(BENCHMARK, loaded, rows, reduction="majority", protocol="one_order")
    low, high = summary["score_interval"]
    assert high - low == pytest.approx(0.090, abs=0.006)  # 0.057 if the pairs were independent


def test_one_item_becomes_a_record_and_a_label(tmp_path: Path) -> None:
    bare = ITEM | {"idx": 4, "input": "", "response1": True, "response2": None, "annotator1": 1, "annotator3": 0}
    loaded = read_pandalm(write(tmp_path / "testset-v1.json", ITEM, bare))
    question = loaded.records[0]["question_id"]
    assert loaded.records[0] == {
        "question_id": question,
        "pair_id": 3,
        "question_body": "Do it.\n\nWith this.",
        "answer1_body": "one",
        "answer2_body": "two",
        "answer1_model_id": "bloom-7b",
        "answer2_model_id": "cerebras-gpt-6.7B",
        "motivation_app": "Mail",
    }
    assert loaded.labels[0] == {"question_id": question, "pair_id": 3, "winner": 2, "annotators": [1, 2, 2]}
    texts = [loaded.records[1][name] for name in ("question_body", "answer1_body", "answer2_body")]
    assert texts == ["Do it.", "true", "null"]
    assert loaded.labels[1]["winner"] == 0
    assert loaded.counts == {"converted": 2, "without_majority": 1}


def test_one_annotator_can_be_the_label(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", ITEM)
    assert [read_pandalm(path, f"annotator{number}").labels[0]["winner"] for number in (1, 2, 3)] == [1, 2, 2]


@pytest.mark.parametrize(
    "items",
    [[3], [ITEM | {"annotator2": 4}], [ITEM | {"annotator2": True}], [ITEM | {"idx": "a"}], [{"idx": 1}], [ITEM, ITEM]],
)
def test_what_the_benchmark_never_published_is_refused(tmp_path: Path, items: list) -> None:
    path = write(tmp_path / "x.json", *items)
    with pytest.raises(InputError, match=f"item {len(items) - 1}: "):
        read_pandalm(path)


@pytest.mark.parametrize("content", ['{"idx": 1}', "[", "\udcff", "", "[]"])
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"x\.json"):
        read_pandalm(path)


def test_predictions_of_other_items_are_refused(tmp_path: Path) -> None:
    loaded = read_pandalm(write(tmp_path / "t.json", ITEM))
    for item in ({"idx": 9, "gpt_result": 1}, {"idx": 3}):
        with pytest.raises(InputError, match=r"p\.json: item 0: "):
            read_predictions([write(tmp_path / "p.json", item)], loaded)
