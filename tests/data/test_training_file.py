"""Training files: what is refused, what is skipped, and access to any row."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from judgelm_jax.data.training_file import check_training_file
from judgelm_jax.errors import InputError

ROW = {
    "question_id": 1,
    "question_body": "q",
    "answer1_body": "a",
    "answer2_body": "",
    "text": "8 6.5\nAssistant 1 is better.",
    "score": [8, 6.5],
}
WITH_REFERENCE = {
    **ROW,
    "reference": {"text": "r"},
    "text_w_reference": "2 3\nAssistant 2 is better.",
    "score_w_reference": [2.0, 3.0],
}


def write(folder: Path, *rows: object) -> Path:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def without(field: str, row: dict[str, Any] = ROW) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != field}


def test_rows_are_read_in_any_order_and_by_many_threads(tmp_path: Path) -> None:
    rows = [{**(WITH_REFERENCE if n % 3 else ROW), "question_id": n, "question_body": "é" * (n % 7)} for n in range(200)]
    path = tmp_path / "train.jsonl"
    lines = [json.dumps(row, ensure_ascii=n % 2 == 0).encode() for n, row in enumerate(rows)]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n\n".join(lines))  # blank lines between, no newline at the end
    file = check_training_file(path)
    assert len(file) == 200
    assert file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert file.has_reference.tolist() == [n % 3 > 0 for n in range(200)]
    order = np.random.default_rng(0).permutation(200)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(file.__getitem__, order)) == [rows[n] for n in order]
    assert file.identity(7) == "7"
    assert file.place(7) == f"{path}:15"
    with pytest.raises(IndexError):
        file[200]


def test_chosen_rows_outlive_their_file(tmp_path: Path) -> None:
    file = check_training_file(write(tmp_path, *({**ROW, "question_id": n} for n in range(5))))
    file = file.rows(np.array([3, 1]))
    assert len(file) == 2
    assert [file[n]["question_id"] for n in range(2)] == [3, 1]
    assert file.place(0).endswith(":4")
    with pytest.raises(IndexError):
        file[2]


def test_rows_where_the_teacher_failed_are_skipped_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {**ROW, "question_id": 1, "text": "error", "score": [8, 6.5]},
        {**ROW, "question_id": 2, "text": "I cannot tell.", "score": [-1, -1]},
        {**ROW, "question_id": 3, "text": "8 -1", "score": [8, -1.0]},
        {**WITH_REFERENCE, "question_id": 4, "text_w_reference": "error", "score_w_reference": [-1, -1]},
        {**ROW, "question_id": 5},
    )
    file = check_training_file(path)
    assert (len(file), file.skipped, file[0]["question_id"]) == (1, 4, 5)


@pytest.mark.parametrize("field", sorted(ROW))
def test_every_field_is_needed(tmp_path: Path, field: str) -> None:
    path = write(tmp_path, {**ROW, "question_id": 0}, without(field))
    with pytest.raises(InputError, match=f"^{path}:2: .*'{field}'.*;"):
        check_training_file(path)


@pytest.mark.parametrize(
    "change",
    [
        {"question_body": None},
        {"answer1_body": True},
        {"answer3_body": "c"},
        {"text": ["8 6.5"]},
        {"text": "8 6\nAssistant 1 is better."},
        {"text": "6.5 8"},
        {"text": "Assistant 1 is better.\n8 6.5"},
        {"text": ""},
        {"score": "8 6.5"},
        {"score": [8]},
        {"score": [8, 6.5, 1]},
        {"score": [8, "6.5"]},
        {"score": [8, True], "text": "8 1"},
        {"score": [8, None]},
        {"score": [8, 11], "text": "8 11"},
        {"score": [-2, 6.5]},
        {"score": [8, 1e300]},
        {"score": [8, 10**400]},
        {"question_id": [2]},
        {"pair_id": False},
        {"reference": 3},
        {"reference": {"model": "x"}},
        {"text_w_reference": "2 3"},
        {"score_w_reference": [2, 3]},
        {"text_w_reference": "2 3", "score_w_reference": [2, 3]},
        {"reference": "r", "text_w_reference": "2 3", "score_w_reference": [3, 2]},
        {"reference": "r", "text_w_reference": 23, "score_w_reference": [2, 3]},
        {"reference": "r", "text_w_reference": "2 30", "score_w_reference": [2, 30]},
    ],
)
def test_a_wrong_record_is_named_with_file_and_line(tmp_path: Path, change: dict[str, Any]) -> None:
    path = write(tmp_path, {**ROW, "question_id": 0}, {**ROW, **change})
    with pytest.raises(InputError) as caught:
        check_training_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ")
    assert ";" in message
    assert "\n" not in message


def test_a_reference_without_judgment_is_nothing_to_complain_of(tmp_path: Path) -> None:
    file = check_training_file(write(tmp_path, {**ROW, "reference": "r", "text_w_reference": None}))
    assert not file.has_reference.any()


def test_two_rows_with_one_identity_are_refused_even_where_one_is_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, {**ROW, "question_id": "1"}, {**ROW, "question_id": 2}, {**ROW, "text": "error"})
    with pytest.raises(InputError, match=f"{path}:3: .*line 1"):
        check_training_file(path)


def test_a_file_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no row to train on \(1 rows"):
        check_training_file(write(tmp_path, {**ROW, "text": "error"}))
    with pytest.raises(InputError, match="no row"):
        check_training_file(write(tmp_path))


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, *({**ROW, "question_id": n} for n in range(20)))
    file = check_training_file(path)
    with path.open("r+b") as stream:
        stream.write(b" " * 30)
    with pytest.raises(InputError, match=f"{path}:1: .*changed"):
        file[0]
    path.unlink()
    assert file[5]["question_id"] == 5  # it is still open


def test_real_files_pass(shared: Path) -> None:
    reviews = check_training_file(shared / "data/reviews/gpt4_pairs_train.jsonl")
    assert (len(reviews), reviews.skipped, reviews.has_reference.sum()) == (4990, 0, 0)
    row = check_training_file(shared / "data/reviews/judgelm_100k_one_row.jsonl")
    assert (len(row), row.skipped, row.has_reference.sum()) == (1, 0, 1)
    assert reviews.identity(1) == reviews[1]["pair_id"]
