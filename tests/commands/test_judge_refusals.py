"""Everything that may be wrong with what `judgelm-judge` is given: one line, exit code 2, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from judge_command import GOOD, PROGRAM, assert_one_line, read, run, write

from judgelm_jax.judging import output
from judgelm_jax.records.json_lines import Record
from judgelm_jax.tokens.tokenization import Tokenizer, load_tokenizer


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
        (["--references={folder}/twice.jsonl"], "twice.jsonl:2: question_id '1' is already in line 1"),
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
        (["--cache_dtype=int4"], "--cache_dtype"),
        (
            ["--cache_dtype=int8"],
            "cache_dtype=int8 is for the mode explain, and the mode is scores; leave",
        ),
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
        (["--input="], "is a folder; name a file"),
        (["--output="], "is no plain file"),
        (["--output={folder}"], "is no plain file"),
        (["--output={folder}/records.jsonl", "--resume"], "is also read"),
        (["--output={folder}/records.jsonl/o"], "is no folder"),
        (["--output=/proc/o.jsonl"], "/proc/o.jsonl"),
        (["--output={folder}/" + "o" * 250], "File name too long"),
        (["--json={folder}/records.jsonl/x"], "is no folder"),
        (["--json={folder}/records.jsonl"], "is also read"),
        (["--input={folder}/absent"], "absent: No such file"),
        (["--input={folder}"], "is a folder; name a file"),
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
def test_a_prompt_that_may_not_be_shortened_ends_the_run_by_name(laboratory_checkpoint, tmp_path, capfd):
    long = {**GOOD, "question_id": "long one", "answer1_body": "a " * 9000}
    source = write(tmp_path / "records.jsonl", [GOOD, long])
    files = (f"--model={laboratory_checkpoint}", f"--input={source}", f"--output={tmp_path / 'o.jsonl'}", "--dtype=float32")
    assert run(*files, "--on_overflow=error") == 2
    assert_one_line(capfd, "'long one' does not fit the context", "--on_overflow=truncate or skip")
    assert not list(tmp_path.glob("o.jsonl*"))
    assert run(*files, "--on_overflow=skip") == 0
    assert [row["status"] for row in read(tmp_path / "o.jsonl")] == ["ok", "overflow"]


def test_a_platform_that_is_not_there_is_named(arguments):
    environment = os.environ | {"JAX_PLATFORMS": "tpu"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "JAX cannot start on the platform 'tpu'" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
