"""Answer files of every known form become the same answers."""

import csv
import gzip
import json
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.formats import mt_bench
from judgelm_jax.evaluation.formats.answers import Reading, read_answers, read_references
from judgelm_jax.evaluation.formats.rows import read_rows

TURNS = [("first?", "one"), ("second?", "two")]
QUESTIONS = {"7": {"question_id": 7, "category": "math", "turns": [ask for ask, _ in TURNS], "reference": ["r1", "r2"]}}
RENDERED = ("[Turn 1]\nfirst?\n\n[Turn 2]\nsecond?", "[Turn 1]\none\n\n[Turn 2]\ntwo")


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def only(path: Path, reading: Reading) -> dict:
    (group,) = read_answers(path, reading)
    (row,) = group.rows.values()
    return row | {"_model": group.model}


@pytest.mark.parametrize("content", [["one", "two"], [{"content": "one"}, {"content": "two", "token_len": 1}]])
def test_mt_bench_answers_are_rendered_turn_by_turn(tmp_path: Path, content: list) -> None:
    path = write(tmp_path / "m.jsonl", {"question_id": 7, "model_id": "internal", "choices": [{"index": 0, "turns": content}]})
    row = only(path, Reading(questions=QUESTIONS))
    assert (row["question_body"], row["text"], row["_model"], row["category"]) == (*RENDERED, "m", "math")
    assert row["reference"] == {"text": "[Turn 1]\nr1\n\n[Turn 2]\nr2"}
    assert row["conversation"] == [
        {"role": "user", "content": "first?"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "second?"},
        {"role": "assistant", "content": "two"},
    ]
    first = only(path, Reading(questions=QUESTIONS, turns=1))
    assert (first["question_body"], first["text"], first["reference"]) == ("first?", "one", {"text": "r1"})
    assert "conversation" not in first


def test_mt_bench_references_are_read_as_answers_are(tmp_path: Path) -> None:
    path = write(tmp_path / "gpt-4.jsonl", {"question_id": 7, "choices": [{"turns": ["one", "two"]}]})
    assert read_references(path, None) == {"7": RENDERED[1]}
    assert read_references(path, 1) == {"7": "one"}
    assert read_references(write(tmp_path / "r.jsonl", {"question_id": 7, "reference": "r"}), None) == {"7": "r"}


@pytest.mark.parametrize("wrap", [lambda text: text, lambda text: {"answer": text}])
def test_arena_hard_answers_are_messages(tmp_path: Path, wrap: object) -> None:
    def messages(count: int) -> list[dict]:
        return [
            {"role": role, "content": content}
            for ask, answer in TURNS[:count]
            for role, content in (("user", ask), ("assistant", wrap(answer)))
        ]

    path = write(tmp_path / "a.jsonl", {"uid": "u", "model": "m", "messages": messages(1)})
    row = only(path, Reading())
    assert [row[name] for name in ("question_id", "question_body", "text", "_model")] == ["u", "first?", "one", "m"]
    path = write(
        tmp_path / "b.jsonl", {"uid": "u", "model": "m", "messages": [{"role": "system", "content": "s"}, *messages(2)]}
    )
    assert (only(path, Reading())["question_body"], only(path, Reading())["text"]) == RENDERED


def test_alpaca_outputs_join_by_their_instruction(tmp_path: Path) -> None:
    one = write(tmp_path / "a.jsonl", {"instruction": "I", "output": "x", "generator": "g1", "dataset": "koala"})
    two = write(tmp_path / "b.jsonl", {"instruction": "I", "output": "y", "generator": "g2"})
    first, second = only(one, Reading()), only(two, Reading())
    assert first["question_id"] == second["question_id"]
    assert (first["question_body"], first["text"], first["_model"], first["dataset"]) == ("I", "x", "g1", "koala")


def test_rows_with_two_outputs_are_two_models(tmp_path: Path) -> None:
    item = {"input": "Q", "output_1": "a", "output_2": "b", "label": 1}
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps([item, item]))
    first, second = read_answers(path, Reading())
    assert [row["text"] for row in first.rows.values()] == ["a", "a"]
    assert [row["text"] for row in second.rows.values()] == ["b", "b"]
    assert (first.model, second.model) == ("output_1", "output_2")
    assert list(first.rows) == list(second.rows)


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "parquet", "json"])
def test_tables_are_read_with_their_own_column_names(tmp_path: Path, kind: str) -> None:
    rows = [{"id": "1", "prompt": "a, b", "reply": "x\ny"}, {"id": "2", "prompt": "c", "reply": ""}]
    path = tmp_path / f"t.{kind}"
    if kind == "parquet":
        pandas.DataFrame(rows).to_parquet(path)
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        plain = tmp_path / kind.removesuffix(".gz")
        with plain.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
        path.write_bytes(gzip.compress(plain.read_bytes()) if kind.endswith("gz") else plain.read_bytes())
    columns = {"question_id": "id", "question_body": "prompt", "text": "reply"}
    (group,) = read_answers(path, Reading(columns=columns))
    assert group.model == "t"
    assert [(row["question_id"], row["question_body"], row["text"]) for row in group.rows.values()] == [
        ("1", "a, b", "x\ny"),
        ("2", "c", ""),
    ]


def test_a_long_table_is_split_by_model(tmp_path: Path) -> None:
    rows = [{"question_id": n, "question_body": "q", "text": f"{m}{n}", "model": m} for m in "ab" for n in (1, 2)]
    first, second = read_answers(write(tmp_path / "t.jsonl", *rows), Reading())
    assert (first.model, second.model) == ("a", "b")
    assert [row["text"] for row in second.rows.values()] == ["b1", "b2"]


def test_values_that_are_no_texts_are_counted(tmp_path: Path) -> None:
    (group,) = read_answers(write(tmp_path / "t.jsonl", {"question_id": 1, "question_body": 3, "text": [1]}), Reading())
    assert (group.rows["1"]["question_body"], group.rows["1"]["text"], group.converted) == ("3", "[1]", 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question_id": 8, "choices": [{"turns": ["a"]}]}, "question '8' is in no file of --questions"),
        ({"question_id": 7, "choices": []}, "choices holds no list of texts"),
        ({"question_id": 7, "choices": [{"turns": ["a", "b", "c"]}]}, "more than the question has"),
        ({"question_id": 7, "choices": [3]}, "choices holds no list of texts"),
        ({"question_id": 7, "choices": [{"turns": ["a", None]}]}, "choices holds no list of texts"),
        ({"uid": 1, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}]}, "is null"),
        ({"question_id": 1, "question_body": None, "text": "x"}, "question_body is null"),
        ({"uid": 1, "messages": [{"role": "user", "content": "a"}]}, "not of user and assistant in turn"),
        ({"instruction": "a", "output_1": "b"}, "question_id"),
        ({"question_id": 1, "question_body": "q"}, "the field 'text' is missing; .*--map"),
        ({"text": "x"}, "'question_id' is missing; add an id, or name its column with --map"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: dict, message: str) -> None:
    good = {"question_id": 7, "choices": [{"turns": ["a"]}]} if "choices" in row else None
    path = write(tmp_path / "a.jsonl", *([good] if good else []), row)
    with pytest.raises(InputError, match=rf"a\.jsonl:{2 if good else 1}: .*{message}"):
        read_answers(path, Reading(questions=QUESTIONS))


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"id": 1, "reply": "x"})
    with pytest.raises(InputError, match="no column 'answer' for --map; the row has 'id', 'reply'"):
        read_answers(path, Reading(columns={"text": "answer"}))
    with pytest.raises(InputError, match="'reply'; give --map once for each field"):
        read_answers(path, Reading(columns={"question_id": "id,text=reply"}))


def test_the_real_files_are_read(shared: Path) -> None:
    folder = shared / "data/benchmarks/mt_bench"
    questions = mt_bench.questions(read_rows(folder / "question.jsonl"))
    for path in sorted((folder / "model_answer").iterdir()):
        (group,) = read_answers(path, Reading(questions=questions))
        raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert group.model == path.stem
        assert [row["question_id"] for row in group.rows.values()] == [row["question_id"] for row in raw]
        for row, original in zip(group.rows.values(), raw, strict=True):
            said = [message["content"] for message in row["conversation"] if message["role"] == "assistant"]
            assert said == original["choices"][0]["turns"]
    (outputs,) = read_answers(shared / "data/benchmarks/alpaca_eval/alpaca-7b/model_outputs.json", Reading())
    assert (outputs.model, len(outputs.rows)) == ("alpaca-7b", 805)
    annotated = read_answers(shared / "data/benchmarks/alpaca_eval/alpaca-7b/annotations.json", Reading())
    assert [(group.model, len(group.rows)) for group in annotated] == [("text_davinci_003", 805), ("alpaca-7b", 805)]


def test_null_answers_are_empty_and_counted(tmp_path: Path) -> None:
    rows = [{"question_id": n, "question_body": "q", "text": text} for n, text in enumerate([None, "", "x"])]
    (group,) = read_answers(write(tmp_path / "a.jsonl", *rows), Reading())
    assert [row["text"] for row in group.rows.values()] == ["", "", "x"]
    assert (group.nulls, group.converted) == (1, 0)


def test_fields_of_other_forms_are_kept_but_for_what_they_became(tmp_path: Path) -> None:
    row = {"question_id": 7, "answer_id": "x", "tstamp": 1.5, "choices": [{"turns": ["one", "two"]}]}
    read = only(write(tmp_path / "m.jsonl", row), Reading(questions=QUESTIONS))
    assert (read["answer_id"], read["tstamp"], "choices" in read) == ("x", 1.5, False)
    mapped = only(write(tmp_path / "t.jsonl", {"id": 1, "q": "q", "a": "a", "topic": "t"}),
                  Reading(columns={"question_id": "id", "question_body": "q", "text": "a"}))  # fmt: skip
    assert {name for name in mapped if not name.startswith("_")} == {"question_id", "question_body", "text", "topic"}


SAMPLES = [
    {"question_id": 7, "question_body": "q", "text": "t", "model": "m", "reference": "r"},
    {"question_id": 7, "choices": [{"turns": ["one", "two"]}]},
    {"instruction": "i", "output": "o", "generator": "g"},
    {"uid": "u", "model": "m", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    {"input": "q", "output_1": "a", "output_2": "b"},
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "turns", "text"]), inner),
    max_leaves=6,
)


@given(st.lists(st.sampled_from(SAMPLES), min_size=1, max_size=3), st.data())
def test_rows_with_any_one_value_changed_are_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict], data: st.DataObject
) -> None:
    last = dict(rows[-1])
    field = data.draw(st.sampled_from(list(last)))
    if data.draw(st.booleans()):
        last[field] = data.draw(VALUES)
    else:
        del last[field]
    path = write(tmp_path_factory.mktemp("a") / "a.jsonl", *rows[:-1], last)
    try:
        groups = read_answers(path, Reading(questions=QUESTIONS))
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017 (there need be no error)
        return
    for group in groups:
        for row in group.rows.values():
            assert isinstance(row["question_body"], str)
            assert isinstance(row["text"], str)
