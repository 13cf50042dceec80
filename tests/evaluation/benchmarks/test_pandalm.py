"""PandaLM's original files, and files that are not."""

import json
from pathlib import Path

import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.pandalm import read_pandalm
from judgelm_jax.evaluation.joining import join_files
from judgelm_jax.evaluation.metrics import summarize
from judgelm_jax.records import check_records, dump_line

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
    benchmark = read_pandalm(shared / "data/benchmarks/pandalm")
    winners = [label["winner"] for label in benchmark.labels]
    assert (len(winners), winners.count(1), winners.count(2), winners.count(0)) == (999, 422, 472, 105)
    assert (benchmark.converted, benchmark.without_majority) == (6, 0)
    assert [row["question_id"] for row in benchmark.records] == [row["question_id"] for row in benchmark.labels]
    assert sum(row["answer1_body"] == "true" for row in benchmark.records) >= 4


def test_its_records_pass_the_check_of_the_judge(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    rows = read_pandalm(shared / "data/benchmarks/pandalm/testset-v1.json").records
    path.write_text("".join(dump_line(row) + "\n" for row in rows), encoding="utf-8")
    assert check_records(path, kind="pair").records == 999


@pytest.mark.parametrize(
    ("name", "field", "agreement"),
    [("gpt-3.5-turbo-testset-v1.json", "gpt_result", 0.6977), ("pandalm-7b-testset-v1.json", "pandalm_result", 0.6677)],
)
def test_published_predictions_agree_as_published(
    shared: Path, tmp_path: Path, name: str, field: str, agreement: float
) -> None:
    folder = shared / "data/benchmarks/pandalm"
    lines = {"1": "1 0", "2": "0 1", "Tie": "1 1", "0": "1 1"}
    labels, predictions = tmp_path / "labels.jsonl", tmp_path / "predictions.jsonl"
    labels.write_text("".join(dump_line(row) + "\n" for row in read_pandalm(folder).labels))
    rows = json.loads((folder / name).read_text(encoding="utf-8"))
    predictions.write_text(
        "".join(dump_line({"question_id": row["idx"], "pred_text": lines.get(str(row[field]), "?")}) + "\n" for row in rows)
    )
    summary = summarize(join_files(labels, predictions, None, "tolerant"), parser="tolerant", unparsed="wrong")
    assert round(summary["agreement"], 4) == agreement
    assert summary["total"] == 999


def test_one_item_becomes_a_record_and_a_label(tmp_path: Path) -> None:
    bare = {
        **ITEM,
        "idx": 4,
        "input": "",
        "response1": True,
        "response2": None,
        "annotator1": 1,
        "annotator2": 2,
        "annotator3": 0,
    }
    benchmark = read_pandalm(write(tmp_path / "testset-v1.json", ITEM, bare))
    assert benchmark.records[0] == {
        "question_id": 3,
        "question_body": "Do it.\n\nWith this.",
        "answer1_body": "one",
        "answer2_body": "two",
        "answer1_model_id": "bloom-7b",
        "answer2_model_id": "cerebras-gpt-6.7B",
        "motivation_app": "Mail",
    }
    assert [benchmark.records[1][name] for name in ("question_body", "answer1_body", "answer2_body")] == [
        "Do it.",
        "true",
        "null",
    ]
    assert [label["winner"] for label in benchmark.labels] == [2, 0]
    assert (benchmark.converted, benchmark.without_majority) == (2, 1)


def test_one_annotator_can_be_the_label(tmp_path: Path) -> None:
    path = write(tmp_path / "x.json", ITEM)
    assert [read_pandalm(path, f"annotator{number}").labels[0]["winner"] for number in (1, 2, 3)] == [1, 2, 2]


@pytest.mark.parametrize(
    "items",
    [[3], [{**ITEM, "annotator2": 4}], [{**ITEM, "annotator2": True}], [{**ITEM, "idx": "a"}], [{"idx": 1}], [ITEM, ITEM]],
)
def test_what_the_benchmark_never_published_is_refused(tmp_path: Path, items: list) -> None:
    path = write(tmp_path / "x.json", *items)
    with pytest.raises(InputError, match=f"item {len(items) - 1}: "):
        read_pandalm(path)


@pytest.mark.parametrize("content", ['{"idx": 1}', "[", "\udcff"])
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=r"x\.json: "):
        read_pandalm(path)
