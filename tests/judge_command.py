"""What the tests of `judgelm-judge` share: running it in this process, its files, and one line of complaint."""

from collections.abc import Sequence
from pathlib import Path

from judgelm_jax.commands import command_line, judge
from judgelm_jax.judging import output
from judgelm_jax.records.json_lines import Record, dump_line, read_jsonl

COUNT = 26


EXPLAIN = ("--mode=explain", "--orders=both", "--batch_size=2", "--max_new_tokens=192")


GOOD = {"question_id": 1, "question_body": "q", "answer1_body": "a", "answer2_body": "b"}


# Runs that end too early are processes of their own, on one device.
PROGRAM = "from judgelm_jax.starting import start; raise SystemExit(start('judge'))"


def run(*arguments: str) -> int:
    return command_line.run(judge.main, judge.FLAGS, "judge", arguments)


def write(path: Path, records: Sequence[Record]) -> Path:
    path.write_text("".join(dump_line(record) + "\n" for record in records), encoding="utf-8")
    return path


def read(path: Path) -> list[Record]:
    return [row for _, row in read_jsonl(path)]


def without_marks(rows: Sequence[Record]) -> list[Record]:
    """The rows without the two fields that may differ between runs."""
    assert all(isinstance(row["pred_id"], str) and row["tstamp"] > 1.7e9 for row in rows)
    return [{name: value for name, value in row.items() if name not in ("pred_id", "tstamp")} for row in rows]


def shard_of(arguments: Sequence[str]) -> tuple[Path, Path]:
    target = Path(arguments[2].removeprefix("--output="))
    return target, output.partial_folder(target) / "shard-00000-of-00001.jsonl"


def assert_one_line(capfd, *parts: str) -> None:
    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("judgelm-judge: ")
    assert "Traceback" not in captured.err
    for part in parts:
        assert part in captured.err
