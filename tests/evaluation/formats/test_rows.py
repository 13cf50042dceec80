"""Rows of JSON Lines, JSON, CSV and Parquet, plain and compressed, and files that are broken."""

import csv
import datetime
import gzip
import json
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.formats.rows import read_json, read_rows

ROWS = [{"id": "1", "text": 'a, b\n"c"; d\te'}, {"id": "2", "text": ""}, {"id": "3", "text": "ü 漢 ‏אב"}]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"))


def as_csv(path: Path, rows: list[dict], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "semicolons"])
def test_every_form_gives_the_same_rows(tmp_path: Path, kind: str, packed: bool) -> None:
    path = tmp_path / f"a.{'csv' if kind == 'semicolons' else kind}"
    if kind == "jsonl":
        write(path, "\n".join(json.dumps(row) for row in ROWS) + "\n\n")
    elif kind == "json":
        write(path, "\ufeff\n" + json.dumps(ROWS))
    else:
        as_csv(path, ROWS, {"csv": ",", "tsv": "\t", "semicolons": ";"}[kind])
    if packed:
        path = write(tmp_path / f"{path.name}.gz", gzip.compress(path.read_bytes()))
    assert [row for _, row in read_rows(path)] == ROWS


def test_parquet_gives_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.anything"
    pandas.DataFrame(ROWS).to_parquet(path)
    assert [row for _, row in read_rows(path)] == ROWS


def test_values_of_parquet_become_values_of_json(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    row = {"n": 3, "x": float("nan"), "when": datetime.datetime(2024, 5, 6, 7), "list": [{"role": "user"}], "raw": b"ab"}
    pandas.DataFrame([row]).to_parquet(path)
    ((place, got),) = read_rows(path)
    assert got == {"n": 3, "x": None, "when": "2024-05-06 07:00:00", "list": [{"role": "user"}], "raw": "ab"}
    assert place == f"{path}: item 0"
    json.dumps(got, allow_nan=False)


def test_places_name_the_line_or_the_item(tmp_path: Path) -> None:
    assert [place for place, _ in read_rows(write(tmp_path / "a.jsonl", '{"a": 1}\n\n{"a": 2}'))] == [
        f"{tmp_path}/a.jsonl:1",
        f"{tmp_path}/a.jsonl:3",
    ]
    assert [place for place, _ in read_rows(write(tmp_path / "a.csv", 'a\n"x\ny"\nz\n'))] == [
        f"{tmp_path}/a.csv:3",
        f"{tmp_path}/a.csv:4",
    ]
    assert read_rows(write(tmp_path / "a.json", '[{"a": NaN}]')) == [(f"{tmp_path}/a.json: item 0", {"a": None})]


@given(st.lists(st.fixed_dictionaries({"id": TEXT, "text": TEXT}), min_size=1, max_size=5))
def test_csv_of_another_writer_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    pandas.DataFrame(rows).to_csv(path, index=False)
    assert [row for _, row in read_rows(path)] == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[1]", "item 0: is no JSON object"),
        ("a.json", '[{"a": 1}', "not valid JSON"),
        ("a.json", '[{"a": Infinity}]', "Infinity is no JSON number"),
        ("a.json", "[" * 5000, "not valid JSON"),
        ("a.json", b"[\xff]", "not UTF-8"),
        ("a.jsonl", '{"a": 1}\n{"a": ', ":2: not valid JSON"),
        ("a.csv", "a,b\n1\n", ":2: the row has more or fewer cells"),
        ("a.csv", "a,b\n1,2,3\n", ":2: the row has more or fewer cells"),
        ("a.csv", "a,a\n1,2\n", ":1: two columns are named 'a'"),
        ("a.csv", 'a\n"x', "not valid CSV"),
        ("a.csv", b"a\n\xff\n", "not UTF-8"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}' * 99, mtime=0)[:-9], "cannot be unpacked"),
        ("a.json", "version https://git-lfs.github.com/spec/v1\noid sha256:04\nsize 9\n", "git lfs pull"),
        ("a.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:04\nsize 9\n", "git lfs pull"),
        ("a.jsonl", "<!DOCTYPE html>\n<html>", "is a web page"),
        ("a.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:04\nsize 9\n", "git lfs pull"),
        ("a.parquet", b"PAR1 and nothing else", "not valid Parquet"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(InputError, match=message) as caught:
        read_rows(path)
    assert str(path) in str(caught.value)


def test_one_json_value_is_read_whole(tmp_path: Path) -> None:
    assert read_json(write(tmp_path / "a.json", '{"v1_0": "x"}')) == {"v1_0": "x"}
