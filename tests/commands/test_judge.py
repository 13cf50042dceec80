"""The command as a user meets it: good runs, complete outputs, shards, and whoever reads what it prints."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from judge_command import COUNT, GOOD, PROGRAM, assert_one_line, read, run, shard_of, without_marks, write
from processes import environment

from judgelm_jax import laboratory
from judgelm_jax.judging import manifest, output
from judgelm_jax.records.json_lines import dump_line
from judgelm_jax.verdicts import verdicts


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
    assert_one_line(capfd, f"{target}: exists already")
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


def test_responses_over_another_cache_are_another_run(arguments, tmp_path, capfd):
    target, _ = shard_of(arguments)
    explain = [*arguments, "--mode=explain", "--max_new_tokens=4", "--limit=2", "--resume"]
    assert run(*explain, "--cache_dtype=int8") == 0
    made = target.read_bytes()
    assert run(*explain, "--cache_dtype=int8") == 0
    assert "is complete, nothing to do" in capfd.readouterr().out
    assert run(*explain) == 2
    assert_one_line(capfd, "--cache_dtype is none and the run began with int8")
    assert target.read_bytes() == made
    target.unlink()
    held = json.loads(manifest.beside(target).read_text())
    manifest.beside(target).unlink()
    assert run(*explain) == 0
    plain = json.loads(manifest.beside(target).read_text())
    assert plain["fingerprint"].pop("cache_dtype") is None
    manifest.beside(target).write_text(json.dumps(plain))  # as of a version that had no such flag
    assert run(*explain) == 0
    assert run(*explain, "--cache_dtype=int8") == 2
    assert_one_line(capfd, "--cache_dtype is int8 and the run began with none")
    assert held["fingerprint"]["cache_dtype"] == "int8"


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


@pytest.mark.usefixtures("loaded_once")
def test_shards_run_by_themselves_and_the_last_joins(arguments, capfd):
    target, _ = shard_of(arguments)
    for part, says in ((1, "waits for the other shards"), (0, str(target))):
        assert run(*arguments, f"--shard={part}/2", "--limit=9") == 0
        assert says in capfd.readouterr().out
    assert [row["question_id"] for row in read(target)] == list(range(9))


@pytest.mark.slow
def test_nobody_reads_standard_output_and_the_work_is_done_all_the_same(arguments, laboratory_checkpoint):
    target, _ = shard_of(arguments)
    for number, stdout in enumerate(("| true", ">&-", "> /dev/full")):
        output_flag = f"--output={target}.{number}"
        command = shlex.join([sys.executable, "-c", PROGRAM, *arguments[:2], output_flag, "--limit=2", "--dtype=float32"])
        done = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {command} {stdout}"], capture_output=True, text=True, env=environment()
        )
        assert len(read(Path(f"{target}.{number}"))) == 2
        full = stdout == "> /dev/full"
        assert done.returncode == (2 if full else 0)
        assert done.stderr == (
            "judgelm-judge: standard output: No space left on device; the work itself is done\n" if full else ""
        )
