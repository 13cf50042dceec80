"""The command as a user meets it: good runs, kills, and everything that may be wrong with what it is given."""

import copy
import dataclasses
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from judgelm_jax import laboratory, verdicts
from judgelm_jax.commands import command_line, judge
from judgelm_jax.judging import manifest, output
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.judge import Judge
from judgelm_jax.records import Record, dump_line, read_jsonl
from judgelm_jax.tokenization import Tokenizer, load_tokenizer

COUNT = 26
EXPLAIN = ("--mode=explain", "--orders=both", "--batch_size=2", "--max_new_tokens=192")


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


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    pairs = laboratory.make_pairs(COUNT, seed=3)
    return write(tmp_path_factory.mktemp("records") / "records.jsonl", [pair.record for pair in pairs])


@pytest.fixture
def arguments(laboratory_checkpoint, records, tmp_path) -> list[str]:
    target = tmp_path / "judgments.jsonl"
    return [f"--model={laboratory_checkpoint}", f"--input={records}", f"--output={target}", "--dtype=float32"]


@pytest.fixture(scope="module")
def loaded() -> dict[JudgeConfig, Judge]:
    return {}


@pytest.fixture
def loaded_once(monkeypatch, loaded) -> None:
    """Runs of this module that need the same programs share them, in place of compiling their own."""
    load = Judge.load

    def load_once(
        model: str, mesh: str, settings: JudgeConfig, model_id: str, base: str | None = None, context: int | None = None
    ) -> Judge:
        shared = dataclasses.replace(settings, orders="forward", on_overflow="truncate")
        if shared not in loaded:
            loaded[shared] = load(model, mesh, shared, model_id, base, context)
        own = copy.copy(loaded[shared])
        own.settings, own.model_id = settings, model_id
        return own

    monkeypatch.setattr(Judge, "load", load_once)


@pytest.mark.usefixtures("loaded_once")
def test_both_orders_in_one_run_equal_two_runs(laboratory_checkpoint, records, tmp_path, capfd):
    rows, summaries = {}, {}
    for orders in ("both", "forward", "reversed"):
        target, summary = tmp_path / f"{orders}.jsonl", tmp_path / f"{orders}.json"
        files = (f"--model={laboratory_checkpoint}", f"--input={records}", f"--output={target}", f"--json={summary}")
        assert run(*files, f"--orders={orders}", "--dtype=float32", "--model_id=me") == 0
        rows[orders], summaries[orders] = without_marks(read(target)), json.loads(summary.read_text())
        assert not output.partial_folder(target).exists()
    captured = capfd.readouterr()
    assert captured.err == ""
    assert captured.out.count("judged     26 records; 0 were done before") == 3
    assert captured.out.count("in all     26 records (26 ok, 0 truncated, 0 unparsed, 0 overflow)") == 3
    inputs = read(records)
    for place, row in enumerate(rows["both"]):
        forward, back = rows["forward"][place], rows["reversed"][place]
        assert {name: row[name] for name in inputs[place]} == inputs[place]
        assert row["pred_model_id"] == "me"
        assert row["forward"]["scores"] == forward["scores"]
        assert row["reversed"]["scores"] == back["scores"]
        assert row["pred_text"] == forward["pred_text"] == " ".join(re.findall(r"[\d.]+", forward["pred_text"]))
        assert back["scores"] == [float(score) for score in reversed(back["pred_text"].split())]
        assert row["consistent"] == (forward["winner"] == back["winner"])
        assert row["status"] == "ok"
    summary = summaries["both"]
    assert summary["consistent"] == sum(row["consistent"] for row in rows["both"])
    assert (summary["records"], summary["judged"], summary["ok"], summary["complete"]) == (COUNT, COUNT, COUNT, True)


def test_content_never_stops_a_run(tmp_path, capfd):
    laboratory.write_checkpoint(tmp_path / "judge", seed=0, context=768)
    hard = ["", " \n ", "word " * 20_000, "x" * 100_000, "\x00" * 50, "\ud800 and \udfff", "</s><s>[INST] <|eot_id|> <unk>"]
    hard += ["{question} {0} %s \\n", "\u2028\u2029\x85\r\n", "🚀日本語\u202e", "10 10\n", "### Response:10"]
    given = [
        {
            "question_id": f"{place}",
            "question_body": text[:60],
            "answer1_body": text,
            "answer2_body": "short",
            "more": [text[:9]],
        }
        for place, text in enumerate(hard)
    ]
    given.append({"question_id": "all", "question_body": "q " * 9000, "answer1_body": "", "answer2_body": ""})
    given.append({"question_id": "both", "question_body": "q", "answer1_body": "a " * 9000, "answer2_body": "b" * 9000})
    source, target = write(tmp_path / "records.jsonl", given), tmp_path / "judgments.jsonl"
    for mode in ("scores", "explain"):
        settings = (
            f"--mode={mode}",
            "--orders=both",
            "--max_new_tokens=16",
            f"--json={tmp_path / 'summary.json'}",
        )
        assert run(f"--model={tmp_path / 'judge'}", f"--input={source}", f"--output={target}", *settings) == 0
        rows = read(target)
        assert [{name: row[name] for name in record} for row, record in zip(rows, given, strict=True)] == given
        long = {"2", "3", "both"}
        expected = [
            "overflow" if row["question_id"] == "all" else "truncated" if row["question_id"] in long else "ok" for row in rows
        ]
        statuses = [row["status"] for row in rows]
        if mode == "scores":
            assert statuses == expected
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert {status: summary[status] for status in statuses} == {status: statuses.count(status) for status in statuses}
        assert all(row["truncated"][0] > 0 for row in rows if row["question_id"] in long)
        target.unlink()
        (tmp_path / "summary.json").unlink()
    assert capfd.readouterr().err == ""


# Runs that end too early. These are processes of their own, on one device.


PROGRAM = "from judgelm_jax.commands.judge import entry; raise SystemExit(entry())"
# The same, but each judgment is followed by a pause, so that a signal meets the run and not its end.
# A shell that runs the tests in the background ignores SIGINT, and its children with it: here it is heard.
SLOW_PROGRAM = f"""
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from judgelm_jax.judging.output import Shard
write = Shard.write
def write_and_wait(*arguments):
    write(*arguments)
    time.sleep(0.05)
Shard.write = write_and_wait
{PROGRAM}
"""


def start(*arguments: str, program: str = PROGRAM) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finish(*arguments: str) -> str:
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err == ""
    return out


def stop_after(lines: int, shard: Path, how: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Sends the signal as soon as the shard has so many lines; returns how many it then has and what stderr says."""
    process = start(*arguments, program=SLOW_PROGRAM)
    while process.poll() is None and not (shard.exists() and shard.read_bytes().count(b"\n") >= lines):
        time.sleep(0.002)
    process.send_signal(how)
    _, err = process.communicate(timeout=300)
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130), err
    return shard.read_bytes().count(b"\n"), err


@pytest.fixture(scope="module")
def uninterrupted(laboratory_checkpoint, records, tmp_path_factory) -> list[Record]:
    target = tmp_path_factory.mktemp("uninterrupted") / "judgments.jsonl"
    finish(f"--model={laboratory_checkpoint}", f"--input={records}", f"--output={target}", "--dtype=float32", *EXPLAIN)
    return without_marks(read(target))


def shard_of(arguments: Sequence[str]) -> tuple[Path, Path]:
    target = Path(arguments[2].removeprefix("--output="))
    return target, output.partial_folder(target) / "shard-00000-of-00001.jsonl"


def test_killed_and_interrupted_the_run_goes_on_to_the_same_file(arguments, uninterrupted):
    target, shard = shard_of(arguments)
    killed, _ = stop_after(3, shard, signal.SIGKILL, *arguments, *EXPLAIN)
    first = shard.read_bytes()
    interrupted, err = stop_after(killed + 3, shard, signal.SIGINT, *arguments, *EXPLAIN, "--resume")
    assert err == "judgelm-judge: interrupted\n"
    assert 3 <= killed < killed + 3 <= interrupted < COUNT
    assert shard.read_bytes().startswith(first[: first.rindex(b"\n") + 1])
    assert not target.exists()
    kept = [json.loads(line.partition(b"\t")[2])["pred_id"] for line in shard.read_bytes().splitlines()]
    out = finish(*arguments, *EXPLAIN, "--resume")
    assert f"judged     {COUNT - interrupted} records" in out
    assert f"{interrupted} were done before" in out
    rows = read(target)
    assert without_marks(rows) == uninterrupted
    assert len({row["pred_id"] for row in rows}) == COUNT
    assert set(kept) <= {row["pred_id"] for row in rows}
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name, manifest.beside(target).name]


@pytest.mark.slow
def test_killed_twenty_five_times_the_run_ends_with_the_same_file(arguments, uninterrupted):
    target, shard = shard_of(arguments)
    lines = 0
    for _ in range(COUNT - 1):
        if lines < COUNT - 2:
            lines, _ = stop_after(lines + 1, shard, signal.SIGKILL, *arguments, *EXPLAIN, "--resume")
        else:  # all but judged: killed somewhere between the start and the first new judgment
            process = start(*arguments, *EXPLAIN, "--resume")
            time.sleep(1)
            process.kill()
            process.communicate()
    finish(*arguments, *EXPLAIN, "--resume")
    assert without_marks(read(target)) == uninterrupted


@pytest.mark.usefixtures("loaded_once")
def test_a_complete_output_is_left_alone_and_known_by_its_manifest(arguments, laboratory_checkpoint, tmp_path, capfd):
    target, _ = shard_of(arguments)
    summary = tmp_path / "summary.json"
    assert run(*arguments, f"--json={summary}") == 0
    made, first = target.read_bytes(), json.loads(summary.read_text())
    assert run(*arguments, f"--json={summary}", "--resume") == 0  # the same command, and its own summary
    assert f"{target}: is complete, nothing to do\n" in capfd.readouterr().out
    again = json.loads(summary.read_text())
    assert (again["judged"], again["already_done"]) == (0, COUNT)
    counted = ("command", "output", "shard", "records", *verdicts.STATUSES, "position", "complete")
    assert {name: again[name] for name in counted} == {name: first[name] for name in counted}
    assert run(*arguments) == 2
    assert_one_line(capfd, f"{target}: stands there already")
    assert run(*arguments, "--mode=explain", "--resume") == 2
    assert_one_line(capfd, "is complete and of another run: --mode is explain and the run began with scores; choose another")
    other = tmp_path / "other"
    laboratory.write_checkpoint(other, seed=1)
    assert run(f"--model={other}", *arguments[1:], "--resume", f"--model_id={laboratory_checkpoint.name}") == 2
    assert_one_line(capfd, "--model holds other weights")
    assert target.read_bytes() == made
    manifest.beside(target).unlink()  # as outputs of earlier versions
    assert run(*arguments, "--mode=explain", "--resume") == 0
    assert "has no manifest, so settings are not compared" in capfd.readouterr().out
    target.write_text(dump_line({"question_id": 1}) + "\n")
    assert run(*arguments, "--resume") == 2
    assert_one_line(capfd, f"{target}:1: is no judgment")


def test_a_file_that_is_no_manifest_is_never_replaced(arguments, capfd):
    target, _ = shard_of(arguments)
    manifest.beside(target).write_text('{"mine": 1}')
    assert run(*arguments) == 2
    assert_one_line(capfd, "judgments.jsonl.manifest.json: is damaged, or no manifest")
    assert manifest.beside(target).read_text() == '{"mine": 1}'


@pytest.mark.usefixtures("loaded_once")
def test_fields_that_a_judgment_has_too_are_kept_under_another_name(arguments, tmp_path, capfd):
    given = [{**GOOD, "status": "new"}, {**GOOD, "question_id": 2, "winner": "me", "category": "math"}]
    source, target = write(tmp_path / "own.jsonl", given), tmp_path / "judgments.jsonl"
    files = [arguments[0], f"--input={source}", f"--output={target}", "--dtype=float32"]
    assert run(*files) == 2
    assert_one_line(capfd, f"{source}:1: the field 'status' is one that the judgment has, too", "--keep_as=input_")
    assert run(*files, "--keep_as=") == 2
    assert_one_line(capfd, "keep_as is empty")
    assert run(*files, "--keep_as=input_") == 0
    rows = read(target)
    assert (rows[0]["input_status"], rows[0]["status"]) == ("new", "ok")
    assert (rows[1]["input_winner"], rows[1]["category"]) == ("me", "math")
    capfd.readouterr()
    again = [arguments[0], f"--input={target}", f"--output={tmp_path / 'again.jsonl'}", "--dtype=float32"]
    assert run(*again, "--keep_as=input_") == 2  # input_status is taken by the first judging
    assert_one_line(capfd, f"{target}:1: the field 'status' cannot be kept as 'input_status'")
    assert run(*again, "--keep_as=first_") == 0
    for row, before in zip(read(tmp_path / "again.jsonl"), rows, strict=True):
        assert (row["first_pred_id"], row["first_scores"]) == (before["pred_id"], before["scores"])


# Weights that compute no numbers.


def damaged_weights(source: Path, target: Path, damage: Callable[[dict[str, Any], Tokenizer], None]) -> Path:
    shutil.copytree(source, target)
    weights = safetensors.numpy.load_file(target / "model.safetensors")
    damage(weights, load_tokenizer(target))
    safetensors.numpy.save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def in_the_last_norm(weights: dict[str, Any], _: Tokenizer) -> None:
    weights["model.norm.weight"][3] = np.nan


def infinite_in_a_layer(weights: dict[str, Any], _: Tokenizer) -> None:
    weights["model.layers.0.self_attn.o_proj.weight"][0] = np.inf


@pytest.mark.parametrize("damage", [in_the_last_norm, infinite_in_a_layer])
@pytest.mark.parametrize("mode", ["scores", "explain", "distribution"])
def test_logits_that_are_not_finite_end_the_run_by_name(laboratory_checkpoint, records, tmp_path, capfd, mode, damage):
    model = damaged_weights(laboratory_checkpoint, tmp_path / "damaged", damage)
    flags = [f"--model={model}", f"--input={records}", f"--output={tmp_path / 'o.jsonl'}", "--limit=4", f"--mode={mode}"]
    assert run(*flags, "--orders=both", "--max_new_tokens=8", "--dtype=float32") == 2
    assert_one_line(capfd, f"{model}: the model's logits for the record '", "are not finite")
    assert not (tmp_path / "o.jsonl").exists()


def test_what_was_judged_before_logits_were_not_finite_is_kept(laboratory_checkpoint, tmp_path, capfd):
    """One token is damaged, and only the shortest record, which is judged last, has it."""
    given = [{**GOOD, "question_id": number, "answer1_body": "a b c " * (40 - number)} for number in range(6)]
    given.append({**GOOD, "question_id": "the one", "answer1_body": "#"})

    def damage(weights: dict[str, Any], tokenizer: Tokenizer) -> None:
        (token,) = set(tokenizer.encode("x #")) - set(tokenizer.encode("x ")) or {tokenizer.encode("x #")[-1]}
        weights["model.embed_tokens.weight"][token] = np.nan

    model = damaged_weights(laboratory_checkpoint, tmp_path / "damaged", damage)
    weights = safetensors.numpy.load_file(model / "model.safetensors")
    assert "lm_head.weight" in weights, "a head that is tied to the embedding would be damaged, too"
    source, target = write(tmp_path / "records.jsonl", given), tmp_path / "o.jsonl"
    flags = [f"--model={model}", f"--input={source}", f"--output={target}", "--dtype=float32"]
    assert run(*flags, "--batch_size=1") == 2
    assert_one_line(capfd, "the record 'the one' are not finite")
    shard = output.partial_folder(target) / "shard-00000-of-00001.jsonl"
    assert len(shard.read_text().splitlines()) == 6


@pytest.mark.usefixtures("loaded_once")
def test_shards_run_by_themselves_and_the_last_joins(arguments, capfd):
    target, _ = shard_of(arguments)
    for part, says in ((1, "waits for the other shards"), (0, str(target))):
        assert run(*arguments, f"--shard={part}/2", "--limit=9") == 0
        assert says in capfd.readouterr().out
    assert [row["question_id"] for row in read(target)] == list(range(9))


# What is wrong with the input. No model is loaded: the flag names one that is not there.

GOOD = {"question_id": 1, "question_body": "q", "answer1_body": "a", "answer2_body": "b"}


def assert_one_line(capfd, *parts: str) -> None:
    captured = capfd.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith("judgelm-judge: ")
    assert "Traceback" not in captured.err
    for part in parts:
        assert part in captured.err


def without(field: str) -> Record:
    return {name: value for name, value in GOOD.items() if name != field}


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question_id": 2', "not valid JSON"),
        ("[1]", "no JSON object"),
        ('{"question_id": NaN}', "NaN"),
        ('{"question_id": 2, "x": 1e999}', "not valid JSON"),
        ("[" * 100_000, "records.jsonl:2: "),
        ('{"x": ' + "9" * 5000 + "}", "not valid JSON"),
        (b"\xff\xfe", "UTF-8"),
        (without("question_id"), "'question_id' is missing"),
        ({**without("question_id"), "pair_id": "p"}, "'question_id' is missing"),
        (without("question_body"), "'question_body' is missing"),
        (without("answer1_body"), "'answer1_body' is missing"),
        (without("answer2_body"), "'answer2_body' is missing"),
        ({**GOOD, "question_id": 2, "answer2_body": 7}, "'answer2_body' is of type number"),
        ({**GOOD, "question_id": 2, "answer1_body": None}, "'answer1_body' is of type null"),
        ({**GOOD, "question_id": 2, "question_body": ["q"]}, "'question_body' is of type list"),
        ({**GOOD, "question_id": 2, "reference": 3}, "'reference'"),
        ({**GOOD, "question_id": 2, "answer3_body": "c"}, "3 answers where 2 are judged"),
        ({**GOOD, "question_id": [2]}, "question_id is of type list"),
        ({**GOOD, "pair_id": True}, "pair_id is of type boolean"),
        (GOOD, "line 1"),
        ({**GOOD, "question_id": "1"}, "line 1"),
        ({**GOOD, "question_id": 7, "pair_id": "1"}, "line 1"),
    ],
)
def test_a_wrong_record_is_named_with_its_line_before_the_model_is_looked_for(tmp_path, capfd, line, says):
    source = tmp_path / "records.jsonl"
    second = line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
    source.write_bytes(json.dumps(GOOD).encode() + b"\n" + second + b"\n")
    assert run(f"--model={tmp_path / 'none'}", f"--input={source}", f"--output={tmp_path / 'out' / 'o.jsonl'}") == 2
    assert_one_line(capfd, f"{source}:2: ", says)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--reference=required"], "records.jsonl:2: a reference for question_id '2' is required"),
        (["--references={folder}/one.jsonl"], "records.jsonl:2: a reference for question_id '2' is required"),
        (["--references={folder}/twice.jsonl"], "twice.jsonl:2: question_id '1' stands already in line 1"),
        (["--references={folder}/none.jsonl"], "none.jsonl:1: the field 'reference' is missing"),
        (["--references={folder}/absent.jsonl"], "absent.jsonl: No such file"),
        (["--limit=1"], "absent: no such folder"),
    ],
)
def test_references_are_checked_before_the_model_is_looked_for(tmp_path, capfd, flags, says):
    source = write(tmp_path / "records.jsonl", [{**GOOD, "reference": "r"}, {**GOOD, "question_id": 2}])
    write(tmp_path / "one.jsonl", [{"question_id": 1, "reference": {"text": "r"}}])
    write(tmp_path / "twice.jsonl", [{"question_id": 1, "reference": "r"}] * 2)
    write(tmp_path / "none.jsonl", [{"question_id": 1}])
    flags = [flag.format(folder=tmp_path) for flag in flags]
    assert run(f"--model={tmp_path / 'absent'}", f"--input={source}", f"--output={tmp_path / 'o.jsonl'}", *flags) == 2
    assert_one_line(capfd, says)
    assert not list(tmp_path.glob("o.jsonl*"))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--no_such_flag"], "no_such_flag"),
        (["--mode=shout"], "--mode"),
        (["--orders=sideways"], "--orders"),
        (["--temperature=-1"], "temperature is -1.0"),
        (["--temperature=nan"], "temperature is nan"),
        (["--temperature=warm"], "--temperature"),
        (["--max_new_tokens=0"], "max_new_tokens is 0"),
        (["--batch_size=0"], "batch_size is 0"),
        (["--limit=0"], "--limit"),
        (["--limit=many"], "--limit"),
        (["--mesh=data:2,data:4"], "--mesh=data:2,data:4"),
        (["--mesh=gpu:2"], "--mesh=gpu:2"),
        (["--shard=2/2"], "--shard=2/2"),
        (["--shard=0/1000"], "--shard=0/1000"),
        (["--shard=١/٢"], "--shard"),
        (["--shard=1"], "--shard=1"),
        (["stray"], "unexpected argument 'stray'"),
        (["--model="], "no model is named"),
        (["--input="], "is no plain file"),
        (["--output="], "is no plain file"),
        (["--output={folder}"], "is no plain file"),
        (["--output={folder}/records.jsonl", "--resume"], "is also read"),
        (["--output={folder}/records.jsonl/o"], "is no folder"),
        (["--output=/proc/o.jsonl"], "/proc/o.jsonl"),
        (["--output={folder}/" + "o" * 250], "File name too long"),
        (["--json={folder}/records.jsonl/x"], "is no folder"),
        (["--json={folder}/records.jsonl"], "is also read"),
        (["--input={folder}/absent"], "absent: No such file"),
        (["--input={folder}"], "is no plain file"),
        (["--mesh=data:3"], "the mesh data:3"),
        (["--max_new_tokens=4096", "--mode=explain"], "context of the model is 2048"),
    ],
)
def test_a_wrong_flag_or_path_is_named_in_one_line(laboratory_checkpoint, tmp_path, capfd, flags, says):
    source = write(tmp_path / "records.jsonl", [GOOD])
    flags = [flag.format(folder=tmp_path) for flag in flags]
    given = {"--model": str(laboratory_checkpoint), "--input": str(source), "--output": f"{tmp_path / 'o.jsonl'}"}
    replaced = {flag.partition("=")[0] for flag in flags}
    assert run(*(f"{name}={value}" for name, value in given.items() if name not in replaced), *flags) == 2
    assert_one_line(capfd, says)
    assert list(tmp_path.iterdir()) == [source]


def test_required_flags_are_asked_for_also_in_a_second_call(capfd):
    for name in ("model", "input", "output"):
        given = [f"--{other}=x" for other in ("model", "input", "output") if other != name]
        assert run(*given) == 2
        assert_one_line(capfd, f"--{name}")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: cut(folder / "model.safetensors"), "model.safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "judge"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors"),
        (lambda folder: cut(folder / "config.json"), "config.json"),
        (lambda folder: cut(folder / "tokenizer.model"), "tokenizer.model"),
        (lambda folder: (folder / "tokenizer.model").unlink(), "tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "judge"),
        (shutil.rmtree, "judge: no such folder"),
    ],
)
def test_a_broken_checkpoint_is_named_and_leaves_nothing(
    laboratory_checkpoint, tmp_path, capfd, damage: Callable[[Path], Any], says
):
    source = write(tmp_path / "records.jsonl", [GOOD])
    model = tmp_path / "judge"
    shutil.copytree(laboratory_checkpoint, model)
    damage(model)
    assert run(f"--model={model}", f"--input={source}", f"--output={tmp_path / 'o.jsonl'}") == 2
    assert_one_line(capfd, says)
    assert not list(tmp_path.glob("o.jsonl*"))


@pytest.mark.usefixtures("loaded_once")
def test_a_full_disk_ends_the_run_and_keeps_what_was_judged(arguments, tmp_path, capfd):
    target, shard = shard_of(arguments)
    assert run(*arguments) == 0
    expected = without_marks(read(target))
    target.unlink()
    capfd.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))  # no file may be longer: the shard ends in a torn line
    try:
        code = run(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 2
    assert_one_line(capfd, f"{output.partial_folder(target)}: File too large", "go on with --resume")
    kept = shard.read_bytes()
    assert 2000 < len(kept) <= 4000
    assert kept.endswith(b"}\n")
    assert run(*arguments, "--resume") == 0
    assert f"{kept.count(b'{' + chr(34).encode() + b'question_id')} were done before" in capfd.readouterr().out
    assert without_marks(read(target)) == expected


@pytest.mark.usefixtures("loaded_once")
def test_a_prompt_that_may_not_be_shortened_ends_the_run_by_name(laboratory_checkpoint, tmp_path, capfd):
    long = {**GOOD, "question_id": "long one", "answer1_body": "a " * 9000}
    source = write(tmp_path / "records.jsonl", [GOOD, long])
    files = (f"--model={laboratory_checkpoint}", f"--input={source}", f"--output={tmp_path / 'o.jsonl'}", "--dtype=float32")
    assert run(*files, "--on_overflow=error") == 2
    assert_one_line(capfd, "'long one' does not fit the context", "--on_overflow=truncate or skip")
    assert not list(tmp_path.glob("o.jsonl*"))
    assert run(*files, "--on_overflow=skip") == 0
    assert [row["status"] for row in read(tmp_path / "o.jsonl")] == ["ok", "overflow"]


# Who reads what the command prints.


def test_nobody_reads_standard_output_and_the_work_is_done_all_the_same(arguments, laboratory_checkpoint):
    target, _ = shard_of(arguments)
    for number, stdout in enumerate(("| true", ">&-", "> /dev/full")):
        output_flag = f"--output={target}.{number}"
        command = " ".join([sys.executable, "-c", f"'{PROGRAM}'", *arguments[:2], output_flag, "--limit=2", "--dtype=float32"])
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command} {stdout}"], capture_output=True, text=True, env=environment
        )
        assert len(read(Path(f"{target}.{number}"))) == 2
        full = stdout == "> /dev/full"
        assert done.returncode == (2 if full else 0)
        assert done.stderr == (
            "judgelm-judge: standard output: No space left on device; the work itself is done\n" if full else ""
        )


def test_a_platform_that_is_not_there_is_named(arguments):
    environment = os.environ | {"JAX_PLATFORMS": "tpu"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "JAX cannot start on the platform 'tpu'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
