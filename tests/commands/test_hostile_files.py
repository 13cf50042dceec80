"""Files that are not what a command expects: one line on stderr, exit code 2, no traceback, nothing written."""

import gzip
import importlib
import json
from pathlib import Path

import pytest

from judgelm_jax.commands import command_line

RECORD = {"question_id": 1, "question_body": "q", "answer1_body": "a", "answer2_body": "b", "text": "1 2", "pred_text": "1 2"}
LINE = json.dumps(RECORD)
TINY = Path(__file__).parents[2] / "configs" / "tiny.py"

# The content of the file, and a part of what must be said of it.
HOSTILE: dict[str, tuple[bytes | None, str]] = {
    "folder": (None, ""),
    "not_utf8": (b'{"question_id": "\xff"}\n', "UTF-8"),
    "utf16": (f"{LINE}\n".encode("utf-16"), "UTF-16"),
    "deep": (b'{"question_id": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "nested"),
    "deep_objects": (b'{"x": ' * 900 + b"1" + b"}" * 900 + b"\n", "nested"),
    "large_integer": (b'{"question_id": ' + b"9" * 5000 + b"}\n", "not valid JSON"),
    "large_float": (b'{"question_id": 1e999}\n', "1e999"),
    "nan": (b'{"question_id": NaN}\n', "NaN"),
    "infinity": (b'{"question_id": 1, "score": [-Infinity, 1]}\n', "Infinity"),
    "twice": (b'{"question_id": 1, "x": {"a": 1, "a": 2}}\n', "'a' is there twice"),
    "gzip": (gzip.compress(f"{LINE}\n".encode(), mtime=0), "gunzip"),
    "git_lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:04\nsize 9\n", "git lfs pull"),
    "web_page": (b"<!DOCTYPE html>\n<html>", "a web page"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04", "unzstd"),
    "list": (f"[\n{LINE},\n{LINE}\n]\n".encode(), "one JSON list"),
    "list_on_a_line": (f"[{LINE}]".encode(), "one JSON list"),
    "many_lines": (json.dumps(RECORD, indent=1).encode(), "over many lines"),
    "zeros": (b"\0" * 100, "not valid JSON"),
    "null": (b"null\n", "no JSON object"),
    "text": (b"question_id,question_body\n", "not valid JSON"),
}

# Files of JSON Lines that a command reads; {} is the hostile one. The files of `prepare` may have other forms, so that its own
# tests hold them.
COMMANDS = [
    ("judge", ["--model=absent", "--input={}", "--output=out"]),
    ("judge", ["--model=absent", "--input=good", "--references={}", "--output=out"]),
    ("evaluate", ["--labels={}", "--predictions=good"]),
    ("evaluate", ["--labels=good", "--predictions={}"]),
    ("evaluate", ["--labels=good", "--predictions=good", "--reversed_predictions={}"]),
    ("bench", ["--input={}", "--model=absent"]),
    ("train", [f"--config={TINY}", "--data={}", "--output=out", "--tokenizer=absent"]),
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good").write_text(json.dumps({name: RECORD[name] for name in RECORD if name != "pred_text"}) + "\n")
    return tmp_path


def run(name: str, arguments: list[str]) -> int:
    module = importlib.import_module(f"judgelm_jax.commands.{name}")
    return command_line.run(module.main, module.FLAGS, name, arguments)


def one_line(capfd: pytest.CaptureFixture[str], name: str) -> str:
    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith(f"judgelm-{name}: ")
    return captured.err


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize(("name", "arguments"), COMMANDS)
def test_a_hostile_file_is_named_in_one_line(
    files: Path, capfd: pytest.CaptureFixture[str], name: str, arguments: list[str], kind: str
) -> None:
    content, says = HOSTILE[kind]
    hostile = files / f"{kind}.jsonl"
    if content is None:
        hostile.mkdir()
    else:
        hostile.write_bytes(content)
    if name == "evaluate" and "--labels=good" in arguments:
        (files / "good").write_text(json.dumps(RECORD | {"winner": 1}) + "\n")
    assert run(name, [argument.replace("{}", hostile.name) for argument in arguments]) == 2
    line = one_line(capfd, name)
    assert hostile.name in line
    assert says in line
    assert not (files / "out").exists()


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\n\r\n", b""])
def test_byte_order_marks_and_line_ends_of_windows_are_read(files: Path, start: bytes, end: bytes) -> None:
    for name in ("labels", "predictions"):
        (files / name).write_bytes(start + LINE.encode() + end)
    assert run("evaluate", ["--labels=labels", "--predictions=predictions"]) == 0


def test_lone_surrogates_are_read_and_printed(files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (files / "labels").write_text(LINE + "\n")
    (files / "predictions").write_text(LINE.replace('"question_id": 1', '"question_id": "\\ud800"') + "\n")
    assert run("evaluate", ["--labels=labels", "--predictions=predictions"]) in (0, 2)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "grid", ["", "1", "1:2", "1:2:0", "a:b:c", "1:10:nan", "1:inf:1", "0:10:0.01", "5:1:1", "1:10:1:1", "1:1e9:1e-9"]
)
def test_a_grid_that_is_none_is_refused(files: Path, capfd: pytest.CaptureFixture[str], grid: str) -> None:
    assert run("judge", ["--model=absent", "--input=good", "--output=out", "--mode=distribution", f"--score_grid={grid}"]) == 2
    assert "--score_grid" in one_line(capfd, "judge")
