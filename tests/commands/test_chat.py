"""The command: a record of a file or typed in, questions from the standard input, what is written."""

import io
import json

import pytest

from judgelm_jax.commands import chat
from judgelm_jax.commands.command_line import run
from judgelm_jax.records.json_lines import dump_line

RECORDS = [
    {"question_id": number, "question_body": f"Question {number}?", "answer1_body": "Yes.", "answer2_body": "No."}
    for number in (3, 4)
]


@pytest.fixture
def ask(monkeypatch, tmp_path, laboratory_checkpoint):
    records = tmp_path / "records.jsonl"
    records.write_text("".join(dump_line(row) + "\n" for row in RECORDS))

    def ask(text, *arguments, file=True):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        own = [f"--model={laboratory_checkpoint}", "--dtype=float32", "--max_new_tokens=20", *arguments]
        return run(chat.main, chat.FLAGS, "chat", [*own, f"--input={records}"] if file else own)

    return ask


def test_a_record_is_judged_and_questions_are_answered(ask, tmp_path, capsys):
    assert ask("Why?\nAre you sure?\n\nnot read\n", "--id=4", f"--json={tmp_path / 'said.json'}") == 0
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["judgment"]["question_body"] == "Question 4?"
    assert [turn["question"] for turn in said["turns"]] == ["Why?", "Are you sure?"]
    printed = capsys.readouterr().out
    assert said["turns"][1]["answer"].strip() in printed
    assert all(turn["answer"] for turn in said["turns"])


def test_a_record_that_is_typed_in(ask, tmp_path):
    assert ask("Why?\n.\nYes.\nReally.\n.\nNo.\n.\n", f"--json={tmp_path / 'said.json'}", file=False) == 0
    judgment = json.loads((tmp_path / "said.json").read_text())["judgment"]
    assert (judgment["question_body"], judgment["answer1_body"]) == ("Why?", "Yes.\nReally.")


def test_one_answer_is_typed_in_with_its_reference(ask, tmp_path):
    typed = "Why?\n.\nYes.\n.\nBecause.\n.\nHow so?\n"
    assert ask(typed, "--kind=single", f"--json={tmp_path / 'said.json'}", file=False) == 0
    said = json.loads((tmp_path / "said.json").read_text())
    assert said["judgment"]["reference"] == "Because."
    assert said["judgment"]["reference_used"]
    assert [turn["question"] for turn in said["turns"]] == ["How so?"]


def test_what_a_terminal_would_obey_is_not_printed():
    assert chat._shown("a\x1b[2Jb\tc\nd\x9b") == "a\ufffd[2Jb\tc\nd\ufffd"


@pytest.mark.parametrize(
    ("arguments", "file", "expected"),
    [
        (["--id=9"], True, "no record has the id '9'"),
        (["--id=9"], False, "--id names a record of --input"),
        (["--mesh=rows:2"], True, "--mesh=rows:2"),
        (["--kind=multimodal"], False, "records of --kind=multimodal cannot be typed in; give --input"),
        (["--kind=multi", "--preset=chat"], True, "--preset=chat shows two answers"),
        (["--preset=prometheus_relative"], True, "records.jsonl:1: the field 'rubric' is missing"),
        (["--preset=chat"], True, "has no chat template"),
    ],
)
def test_bad_input_is_one_line(ask, capsys, arguments, file, expected):
    assert ask("", *arguments, file=file) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert printed.count("\n") == 1
