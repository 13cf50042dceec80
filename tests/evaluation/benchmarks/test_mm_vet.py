"""MM-Vet: the real part that lies in the shared folder, and scores by capability."""

import json
from pathlib import Path

import pytest
from benchmark_files import summary_of, write_json

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.mm_vet import BENCHMARK, add_answers, read_mm_vet, read_predictions

ITEMS = {
    "v1": {"imagename": "a.png", "question": "q1", "answer": "1<OR>one", "capability": ["ocr", "math"]},
    "v2": {"imagename": "b.png", "question": "q2", "answer": "2", "capability": ["ocr"]},
    "v3": {"imagename": "c.png", "question": "q3", "answer": "3<AND>4", "capability": ["math", "ocr"]},
}


def test_the_real_files_are_read(shared: Path) -> None:
    folder = shared / "data/benchmarks/mm_vet"
    answers = json.loads((folder / "llava_llama2_13b_chat.json").read_text(encoding="utf-8"))
    loaded = add_answers(read_mm_vet(folder), folder / "llava_llama2_13b_chat.json")
    assert (loaded.kind, len(loaded.records)) == ("multimodal", 57)
    assert loaded.counts == {"converted": 0, "unused_answers": 218 - 57}
    for record in loaded.records:
        assert record["answer1_body"] == answers[record["question_id"]]
        assert record["answer1_model_id"] == "llava_llama2_13b_chat"
    assert any("<OR>" in record["reference"] for record in loaded.records)


def test_published_grades_are_averaged_over_runs_and_by_capability(tmp_path: Path) -> None:
    loaded = read_mm_vet(write_json(tmp_path / "mm-vet.json", ITEMS))
    grades = {"v1": {"score": [0.2, 0.4]}, "v2": {"score": [1.0]}, "v3": {"score": [0.0]}, "v9": {"score": [1]}}
    summary = summary_of(BENCHMARK, loaded, read_predictions([write_json(tmp_path / "g.json", grades)], loaded))
    assert summary["score"] == pytest.approx((0.3 + 1 + 0) / 3)
    assert summary["capabilities"] == {"math": pytest.approx(0.15), "ocr": pytest.approx(1.3 / 3)}
    assert {name: group["score"] for name, group in summary["groups"].items()} == {
        "math+ocr": pytest.approx(0.15),
        "ocr": pytest.approx(1),
    }


def test_judgments_of_ours_count_a_tenth_of_their_score(tmp_path: Path) -> None:
    loaded = read_mm_vet(write_json(tmp_path / "mm-vet.json", ITEMS))
    fields = ({"scores": [8]}, {"scores": [8], "expected_scores": [6]}, {"scores": None, "status": "unparsed"})
    rows = [{**record, "pred_text": "x", **one} for record, one in zip(loaded.records, fields, strict=True)]
    summary = summary_of(BENCHMARK, loaded, rows)
    assert summary["score"] == pytest.approx((0.8 + 0.6 + 0) / 3)
    assert summary["coverage"]["unparsed"] == 1


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "no JSON object"),
        ({}, "no JSON object"),
        ({"v1": 3}, "item 'v1'"),
        ({"v1": ITEMS["v1"] | {"capability": "x"}}, "capability"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, items: object, message: str) -> None:
    with pytest.raises(InputError, match=rf"mm-vet\.json.*{message}"):
        read_mm_vet(write_json(tmp_path / "mm-vet.json", items))


def test_a_question_without_answer_or_grade_is_named(tmp_path: Path) -> None:
    loaded = read_mm_vet(write_json(tmp_path / "mm-vet.json", ITEMS))
    with pytest.raises(InputError, match=r"a\.json: has no answer to 'v2'"):
        add_answers(loaded, write_json(tmp_path / "a.json", {"v1": "x"}))
    with pytest.raises(InputError, match=r"g\.json: item 'v1': score"):
        read_predictions([write_json(tmp_path / "g.json", {"v1": {"score": [2]}})], loaded)
