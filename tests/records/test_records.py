"""Reading, checking and writing of JSON Lines files."""

import errno
import gzip
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.records import json_lines, output_files, records

PAIR = {"question_id": 1, "question_body": "q", "answer1_body": "a", "answer2_body": "b"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_line_numbers_count_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"b": "\xe4\xbd\xa0"}')
    assert list(json_lines.read_jsonl(path)) == [(1, {"a": 1}), (4, {"b": "你"})]


@pytest.mark.parametrize(
    "line",
    [
        b'{"a": ',
        b'["a"]',
        b'"a"',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    ],
)
def test_a_broken_line_is_named_with_file_and_line(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(InputError) as caught:
        list(json_lines.read_jsonl(path))
    message = str(caught.value)
    assert message.startswith(f"{path}:2: ")
    assert "; " in message
    assert "\n" not in message
    assert len(message) < 400


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec=None, exclude_categories=())),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON_VALUES))
def test_what_is_written_is_read_back_equal_on_one_line(tmp_path_factory: pytest.TempPathFactory, record: dict) -> None:
    line = json_lines.dump_line(record)
    assert "\n" not in line
    assert "\r" not in line
    path = tmp_path_factory.mktemp("round") / "out.jsonl"
    path.write_bytes(line.encode("utf-8") + b"\n")
    assert list(json_lines.read_jsonl(path)) == [(1, record)]


def test_characters_are_written_plainly_and_lone_surrogates_escaped() -> None:
    assert json_lines.dump_line({"a": "你 🙂"}) == '{"a": "你 🙂"}'
    assert json_lines.dump_line({"a": "你\ud800"}).isascii()
    with pytest.raises(ValueError):
        json_lines.dump_line({"a": float("nan")})


def test_identity_prefers_the_pair_id_and_prints_numbers_as_strings() -> None:
    assert records.identity({"pair_id": "p", "question_id": 1}) == "p"
    assert records.identity({"pair_id": None, "question_id": 1}) == "1" == records.identity({"question_id": "1"})
    assert records.question_identity({"pair_id": "p", "question_id": 1}) == "1"


@pytest.mark.parametrize("wrong", [True, [1], {"a": 1}, None])
def test_an_id_is_a_string_or_a_number(wrong: object) -> None:
    with pytest.raises(InputError, match="question_id"):
        records.identity({"question_id": wrong})


def test_a_check_counts_records_and_hashes_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", *({**PAIR, "question_id": number} for number in range(7)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert records.check_records(path) == records.InputSummary(7, digest)
    assert records.check_records(path, limit=3).records == 3
    assert records.check_records(path, limit=30).records == 7
    empty = write(tmp_path / "empty.jsonl")
    assert records.check_records(empty).records == 0


def test_a_file_of_answers_is_told_from_records(tmp_path: Path) -> None:
    answers = write(tmp_path / "in.jsonl", {"question_id": 1, "question_body": "q", "text": "a", "model": "m"})
    with pytest.raises(InputError, match=r"in\.jsonl:1: this is a model's answer, .*judgelm-prepare makes records"):
        records.check_records(answers)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"question_id": None}, "question_id"),
        ({"pair_id": [1]}, "pair_id"),
        ({"question_body": None}, "question_body"),
        ({"answer1_body": 3}, "answer1_body"),
        ({"answer2_body": None}, "answer2_body"),
        ({"answer2_body": True}, "answer2_body"),
        ({"answer3_body": "c"}, "answer3_body"),
        ({"answer4_body": "d"}, "answer4_body"),
        ({"reference": 3}, "reference"),
        ({"reference": {"txt": "r"}}, "reference"),
    ],
)
def test_wrong_structure_is_named_with_file_line_and_field(tmp_path: Path, change: dict, named: str) -> None:
    path = write(tmp_path / "in.jsonl", PAIR, {**PAIR, "question_id": 2, **change})
    with pytest.raises(InputError, match=named) as caught:
        records.check_records(path)
    assert str(caught.value).startswith(f"{path}:2: ")


@pytest.mark.parametrize("field", ["question_id", "question_body", "answer1_body", "answer2_body"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    path = write(tmp_path / "in.jsonl", {name: value for name, value in PAIR.items() if name != field})
    with pytest.raises(InputError, match=f"{field}' is missing"):
        records.check_records(path)


def test_content_is_never_refused(tmp_path: Path) -> None:
    texts = ["", "\x00</s><s>", "\ud800", "x" * 100_000, "{}"]
    rows = [{**PAIR, "question_id": number, "answer1_body": text, "reference": text} for number, text in enumerate(texts)]
    assert records.check_records(write(tmp_path / "in.jsonl", *rows)).records == len(texts)


def test_structure_behind_the_limit_is_checked_too(tmp_path: Path) -> None:
    path = write(tmp_path / "in.jsonl", PAIR, {"question_id": 2})
    with pytest.raises(InputError, match=":2: "):
        records.check_records(path, limit=1)


def test_multi_takes_any_number_of_answers_without_a_gap(tmp_path: Path) -> None:
    row = {**PAIR, "answer3_body": "c", "answer4_body": "d"}
    assert records.check_records(write(tmp_path / "in.jsonl", row), answers=(2, None)).records == 1
    assert records.answers_of(row) == ["a", "b", "c", "d"]
    with pytest.raises(InputError, match="answer6_body"):
        records.check_records(write(tmp_path / "gap.jsonl", {**row, "answer6_body": "f"}), answers=(2, None))


@given(st.lists(st.integers(0, 30) | st.sampled_from(["1", "x", "30", "007"]), max_size=12))
def test_a_double_id_is_found_and_both_lines_named(tmp_path_factory: pytest.TempPathFactory, ids: list) -> None:
    path = write(tmp_path_factory.mktemp("ids") / "in.jsonl", *({**PAIR, "question_id": value} for value in ids))
    names = [str(value) for value in ids]
    second = next((place for place, name in enumerate(names) if name in names[:place]), None)
    if second is None:
        assert records.check_records(path).records == len(ids)
        return
    with pytest.raises(InputError) as caught:
        records.check_records(path)
    assert str(caught.value).startswith(f"{path}:{second + 1}: ")
    assert f"line {names.index(names[second]) + 1};" in str(caught.value)


def test_references_join_by_question_id(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", {"question_id": 1, "reference": {"text": "r"}}, {"question_id": "2", "reference": ""})
    assert records.read_references(path) == {"1": "r", "2": ""}
    double = write(tmp_path / "d.jsonl", {"question_id": 1, "reference": "r"}, {"question_id": "1", "reference": "s"})
    with pytest.raises(InputError, match=r"d.jsonl:2: .*line 1"):
        records.read_references(double)
    with pytest.raises(InputError, match="reference"):
        records.read_references(write(tmp_path / "m.jsonl", {"question_id": 1}))


def test_an_output_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.jsonl"
    with output_files.write_atomically(path) as file:
        file.write("one\n")
        assert not path.exists()
    assert path.read_text() == "one\n"

    def fail() -> None:
        with output_files.write_atomically(path) as file:
            file.write("two\n")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space") as caught:
        fail()
    assert caught.value.filename == str(path)
    assert path.read_text() == "one\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["out.jsonl"]


def test_outputs_that_would_destroy_something_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "there.jsonl", PAIR)
    output_files.check_output(path, overwrite=True)
    output_files.check_output(tmp_path / "a" / "b.jsonl", overwrite=False)
    with pytest.raises(InputError, match="--overwrite"):
        output_files.check_output(path, overwrite=False)
    with pytest.raises(InputError, match="plain file"):
        output_files.check_output(tmp_path, overwrite=True)
    with pytest.raises(InputError, match="plain file"):
        output_files.check_output(Path("/dev/null"), overwrite=True)
    with pytest.raises(InputError, match="no folder"):
        output_files.check_output(path / "x", overwrite=True)
    with pytest.raises(InputError, match="also read"):
        output_files.check_output(path, overwrite=True, inputs=[path.parent / "." / path.name])


def test_a_compressed_file_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(gzip.compress(b'{"question_id": 1}\n'))
    with pytest.raises(InputError, match=r"records\.jsonl: is compressed with gzip: unpack it with gunzip"):
        list(json_lines.read_jsonl(path))


def test_the_column_of_a_cut_line_is_in_that_line(tmp_path):
    path = tmp_path / "cut.jsonl"
    cut = '{"question_id": 2, "question_body": '
    path.write_text(f'{{"question_id": 1}}\n{cut}\r\n')
    with pytest.raises(InputError, match=f"cut.jsonl:2: not valid JSON .*column {len(cut) + 1}\\)"):
        list(json_lines.read_jsonl(path))
