"""A whole run with the model stubbed: references, limit, shards, resume, counts, memory and speed of the host side."""

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.judging import output, runner
from judgelm_jax.judging import prepared as prepared_module
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.responses import Counts
from judgelm_jax.prompts.arrangements import FORWARD, REVERSED
from judgelm_jax.records.json_lines import Record, read_jsonl
from judgelm_jax.verdicts import merging, verdicts

COUNT = 23


class StubJudge:
    """Answers every record by its id, in another order than it came; stops before the record `stop_at`, if given."""

    def __init__(self, settings: JudgeConfig | None = None, stop_at: int | None = None):
        self.settings = settings or JudgeConfig()
        self.engine = types.SimpleNamespace(counts=Counts())
        self.stop_at = stop_at
        self.prepared: list[list[int]] = []

    def prepare(self, window: Sequence[tuple[int, Record]], references: Mapping[str, str], orders: str) -> Any:
        self.prepared.append([index for index, _ in window])
        return window

    def judge_prepared(self, window: Sequence[tuple[int, Record]]) -> Iterator[tuple[int, Record]]:
        for index, record in sorted(window, key=lambda item: item[0] * 7 % 11):
            if index == self.stop_at:
                raise KeyboardInterrupt
            yield index, self.row(index, record)

    def row(self, index: int, record: Record) -> Record:
        texts = ("7 8", "prose", "9 9")
        both = self.settings.orders == "both"
        shown = [
            verdicts.verdict_from_text(texts[(index + place) % 3], order, "stop", (int(index % 5 == 0), 0))
            for place, order in enumerate((FORWARD, REVERSED))
        ]
        return merging.judgment(record, tuple(shown) if both else shown[0], pred_id="p", pred_model_id="m", tstamp=0.0)


def record(number: int, **fields: Any) -> Record:
    return {"question_id": number, "question_body": "q", "answer1_body": "a", "answer2_body": f"b{number}", **fields}


def write(path: Path, rows: Sequence[Record]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch):
    monkeypatch.setattr(prepared_module, "WINDOW", 5)


@pytest.fixture
def job(tmp_path) -> runner.Job:
    return runner.Job(write(tmp_path / "records.jsonl", [record(i) for i in range(COUNT)]), tmp_path / "judgments.jsonl")


def run(job: runner.Job, judge: StubJudge | None = None) -> dict[str, Any]:
    judge = judge or StubJudge()
    checked = runner.check(job, judge.settings)
    fingerprint = runner.fingerprint(job, judge.settings, checked, "weights", "name")
    with output.open_shard(job.output, fingerprint, checked.records, job.part, job.parts, job.resume) as shard:
        return runner.run(job, checked, shard, judge)


def expected(count: int = COUNT, settings: JudgeConfig | None = None) -> list[Record]:
    return [StubJudge(settings).row(index, record(index)) for index in range(count)]


def read(path: Path) -> list[Record]:
    return [row for _, row in read_jsonl(path)]


def test_judgments_stand_in_input_order_and_carry_the_record(job):
    summary = run(job)
    assert read(job.output) == expected()
    assert summary["complete"]
    assert not output.partial_folder(job.output).exists()


@pytest.mark.parametrize("orders", ["forward", "both"])
def test_every_record_is_counted_once_by_status(job, orders):
    settings = JudgeConfig(orders=orders)
    summary = run(job, StubJudge(settings))
    rows = expected(settings=settings)
    statuses = [row["status"] for row in rows]
    assert {name: summary[name] for name in verdicts.STATUSES} == {name: statuses.count(name) for name in verdicts.STATUSES}
    assert sum(summary[name] for name in verdicts.STATUSES) == summary["judged"] == summary["records"] == COUNT
    if orders == "both":
        assert summary["consistent"] == sum(row["consistent"] for row in rows)
        named = [[row[order]["winner"] for order in ("forward", "reversed")] for row in rows]
        assert summary["without_winner"] == sum(None in winners for winners in named)
        assert summary["consistent"] + summary["inconsistent"] + summary["without_winner"] == COUNT
    else:
        assert "consistent" not in summary


@pytest.mark.parametrize("stop_at", range(COUNT))
def test_stopped_at_any_record_what_was_judged_is_kept_and_not_judged_again(job, stop_at):
    judge = StubJudge(stop_at=stop_at)
    with pytest.raises(KeyboardInterrupt):
        run(job, judge)
    assert not job.output.exists()
    again = StubJudge()
    summary = run(dataclasses.replace(job, resume=True), again)
    # Of the windows of five before the one that was stopped, everything; of that one, what came before the stop.
    window = sorted(range(stop_at // 5 * 5, min(COUNT, stop_at // 5 * 5 + 5)), key=lambda index: index * 7 % 11)
    assert summary["already_done"] == stop_at // 5 * 5 + window.index(stop_at)
    assert summary["already_done"] + summary["judged"] == COUNT
    assert sum(map(len, again.prepared)) == summary["judged"]
    assert read(job.output) == expected()
    statuses = [row["status"] for row in expected()]  # of all records, whichever run judged them
    assert {name: summary[name] for name in verdicts.STATUSES} == {name: statuses.count(name) for name in verdicts.STATUSES}
    of_complete = runner.summary_of_complete(job, COUNT)
    assert of_complete == {name: summary[name] for name in of_complete} | {
        "judged": 0,
        "already_done": COUNT,
        "seconds": 0.0,
    }


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_judge_each_record_once_and_the_last_joins(job, order):
    summaries = [run(dataclasses.replace(job, part=part, parts=3)) for part in order]
    assert [summary["complete"] for summary in summaries] == [False, False, True]
    assert sum(summary["judged"] for summary in summaries) == COUNT
    rows = expected()
    for summary, part in zip(summaries, order, strict=True):
        held = rows if summary["complete"] else rows[part::3]
        assert summary["records"] == len(held)
        assert summary["ok"] == sum(row["status"] == "ok" for row in held)
    assert read(job.output) == expected()


def test_a_limit_judges_the_first_records_and_checks_all(job):
    limited = dataclasses.replace(job, limit=7)
    assert run(limited)["records"] == 7
    assert read(job.output) == expected(7)
    with job.input.open("a") as file:
        file.write("{\n")
    with pytest.raises(InputError, match=f"{job.input}:{COUNT + 1}: not valid JSON"):
        runner.check(limited, JudgeConfig())


def test_a_limit_above_the_records_judges_all(job):
    assert run(dataclasses.replace(job, limit=1000))["records"] == COUNT


def test_an_empty_input_gives_an_empty_output(job):
    job.input.write_text("\n")
    assert run(job)["records"] == 0
    assert job.output.read_bytes() == b""


def test_blank_lines_do_not_shift_the_shards(job):
    lines = job.input.read_text().splitlines()
    job.input.write_text("\ufeff" + "\n\n".join(lines) + "\n\n")
    for part in range(4):
        run(dataclasses.replace(job, part=part, parts=4))
    assert read(job.output) == expected()


# References


def with_references(job: runner.Job, rows: Sequence[Record]) -> runner.Job:
    return dataclasses.replace(job, references=write(job.input.with_name("references.jsonl"), rows))


def test_references_join_by_id_whatever_their_order_and_type(job):
    rows = [{"question_id": str(i), "reference": {"text": f"r{i}"}} for i in reversed(range(COUNT))]
    checked = runner.check(with_references(job, rows), JudgeConfig(reference="required"))
    assert checked.references == {str(i): f"r{i}" for i in range(COUNT)}


def test_without_a_file_auto_and_none_need_no_references(job):
    for policy in ("auto", "none"):
        assert runner.check(job, JudgeConfig(reference=policy)).references == {}


@pytest.mark.parametrize("own", [None, "text", {"text": ""}])
def test_required_names_the_first_record_without_a_reference(job, own):
    write(job.input, [record(0, reference="r"), record(1, reference={"text": "r"}), record(2, reference=own)])
    if own is not None:
        runner.check(job, JudgeConfig(reference="required"))
        return
    with pytest.raises(InputError, match=rf"^{job.input}:3: a reference for question_id '2' is required"):
        runner.check(job, JudgeConfig(reference="required"))


@pytest.mark.parametrize("policy", ["auto", "required"])
def test_an_id_that_the_references_lack_is_an_error_that_names_both_files(job, policy):
    lacking = with_references(job, [{"question_id": i, "reference": "r"} for i in range(COUNT) if i != 4])
    with pytest.raises(InputError, match=rf"^{job.input}:5: .*'4' is required and neither it nor {lacking.references} has one"):
        runner.check(lacking, JudgeConfig(reference=policy))
    runner.check(lacking, JudgeConfig(reference="none"))
    runner.check(dataclasses.replace(lacking, limit=4), JudgeConfig(reference=policy))


def test_an_empty_file_of_references_is_no_reason_to_judge_without(job):
    with pytest.raises(InputError, match=f"^{job.input}:1: a reference"):
        runner.check(with_references(job, []), JudgeConfig())


def test_a_record_that_the_references_lack_may_have_its_own(job):
    write(job.input, [record(0, reference="own"), record(1)])
    assert runner.check(with_references(job, [{"question_id": 1, "reference": "r"}]), JudgeConfig()).references == {"1": "r"}


# What a run depends on


def test_whatever_changes_a_judgment_changes_the_fingerprint(job):
    rows = [{"question_id": i, "reference": "r"} for i in range(COUNT)]
    job = with_references(job, rows)

    def fingerprint(job: runner.Job = job, settings: JudgeConfig = JudgeConfig(), model: str = "w", name: str = "n") -> str:  # noqa: B008
        return json.dumps(runner.fingerprint(job, settings, runner.check(job, settings), model, name))

    seen = [
        fingerprint(),
        fingerprint(model="other"),
        fingerprint(name="other"),
        fingerprint(dataclasses.replace(job, limit=3)),
        fingerprint(dataclasses.replace(job, references=None)),
        *(
            fingerprint(settings=JudgeConfig(**change))
            for change in (
                {"mode": "explain"},
                {"orders": "reversed"},
                {"reference": "none"},
                {"temperature": 0.5},
                {"seed": 1},
                {"max_new_tokens": 9},
                {"on_overflow": "skip"},
                {"dtype": "float32"},
                {"mode": "explain", "cache_dtype": "int8"},
            )
        ),
    ]
    write(job.references, [*rows[:-1], {"question_id": COUNT - 1, "reference": "other"}])
    seen.append(fingerprint())
    write(job.references, rows)
    with job.input.open("a") as file:
        file.write(" \n")
    seen.append(fingerprint())
    assert len(set(seen)) == len(seen)


def test_what_changes_no_judgment_leaves_the_fingerprint(job):
    rows = [{"question_id": i, "reference": "r"} for i in range(COUNT)]
    job = with_references(job, rows)
    plain = runner.fingerprint(job, JudgeConfig(), runner.check(job, JudgeConfig()), "w", "n")
    write(job.references, rows[::-1])
    other = runner.Job(job.input, job.output.with_name("x"), job.references, part=1, parts=2, resume=True)
    settings = JudgeConfig(batch_size=3)
    assert runner.fingerprint(other, settings, runner.check(other, settings), "w", "n") == plain


# What goes wrong on the way


def test_an_input_that_can_be_read_only_once_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is no plain file"):
        runner.check(runner.Job(tmp_path / "pipe", tmp_path / "out"), JudgeConfig())


def test_an_input_that_shrinks_during_the_run_is_told_and_nothing_lost(job):
    job = dataclasses.replace(job, parts=2)
    content = job.input.read_text()
    checked = runner.check(job, JudgeConfig())
    fingerprint = runner.fingerprint(job, JudgeConfig(), checked, "weights", "name")
    job.input.write_text("".join(content.splitlines(True)[:11]))
    with (
        output.open_shard(job.output, fingerprint, checked.records, 0, 2, False) as shard,
        pytest.raises(InputError, match=f"{job.input}: has fewer records than at the start"),
    ):
        runner.run(job, checked, shard, StubJudge())
    assert not list(output.partial_folder(job.output).glob("*.done"))
    job.input.write_text(content)
    summaries = [run(dataclasses.replace(job, part=part, resume=True)) for part in (0, 1)]
    assert [summary["already_done"] for summary in summaries] == [6, 0]
    assert read(job.output) == expected()


def test_a_record_that_ends_the_run_does_not_cost_those_before_it(job):
    class Refusing(StubJudge):
        def prepare(self, window, references, orders):
            if any(index == 12 for index, _ in window):
                raise InputError("the record '12' does not fit the context")
            return super().prepare(window, references, orders)

    with pytest.raises(InputError, match="'12'"):
        run(job, Refusing())
    assert run(dataclasses.replace(job, resume=True))["already_done"] == 10
    assert read(job.output) == expected()


def test_the_next_window_is_prepared_while_one_is_judged_and_no_more_than_that(job):
    started = [threading.Event() for _ in range(6)]

    class Watching(StubJudge):
        def prepare(self, window, references, orders):
            started[window[0][0] // 5].set()
            return super().prepare(window, references, orders)

        def judge_prepared(self, window):
            number = window[0][0] // 5
            if number < 4:
                assert started[number + 1].wait(20), "nothing prepares the next window"
            assert not started[number + 2].is_set() if number < 3 else True
            yield from super().judge_prepared(window)

    run(job, Watching())
    assert read(job.output) == expected()


# Memory and speed

MEASURE = """
    import json, resource, sys, time, types
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_runner import StubJudge
    from judgelm_jax.judging import output, runner

    folder, judge = Path(sys.argv[2]), StubJudge()
    for count in map(int, sys.argv[3:]):
        job = runner.Job(folder / "records.jsonl", folder / f"judgments-{count}.jsonl")
        with job.input.open("w") as file:
            for number in range(count):
                record = {"question_id": number, "question_body": "q" * 50, "answer1_body": "because " * 50,
                          "answer2_body": "since " * 80, "reference": {"text": "r" * 100}}
                file.write(json.dumps(record) + "\\n")
        judge.prepare = lambda window, references, orders: window
        start = time.perf_counter()
        checked = runner.check(job, judge.settings)
        with output.open_shard(job.output, {}, checked.records, 0, 1, False) as shard:
            assert runner.run(job, checked, shard, judge)["complete"]
        seconds = time.perf_counter() - start
        print(json.dumps([count / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""


@pytest.mark.slow
def test_memory_is_flat_and_the_host_side_fast(tmp_path):
    """The target is 5,000 records a second, so that a fast device never waits; check, judge and join are all counted.

    Both files are several windows of 8,192 long: in a shorter one the next window is never read beside the one that is judged.
    """
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", textwrap.dedent(MEASURE), here, str(tmp_path), "30000", "60000"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    (_, memory_before), (rate, memory) = map(json.loads, done.stdout.splitlines())
    assert memory - memory_before < 16, "MiB more for 30,000 more records of 1 kB"
    assert rate >= 5000
