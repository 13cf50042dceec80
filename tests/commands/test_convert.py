"""The `convert` command, from its arguments to its folders and exit codes."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import transformers

from judgelm_jax.checkpoints import open_checkpoint, orbax_store
from judgelm_jax.commands import convert
from judgelm_jax.commands.command_line import run


def run_convert(*arguments: str) -> int:
    convert.FLAGS.unparse_flags()
    for name in convert.FLAGS:
        convert.FLAGS[name].unparse()
    return run(convert.main, convert.FLAGS, "convert", list(arguments))


def test_there_and_back_with_logits_verified(
    tmp_path: Path, laboratory_checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    summary = tmp_path / "summary.json"
    there = [f"--source={laboratory_checkpoint}", f"--target={tmp_path / 'judge'}", "--to=orbax"]
    assert run_convert(*there, "--verify", f"--json={summary}") == 0
    back = [f"--source={tmp_path / 'judge'}", f"--target={tmp_path / 'hf'}", "--to=hf", "--verify", "--shard_size=0.001"]
    assert run_convert(*back) == 0
    output = capsys.readouterr()
    assert output.out.count("largest difference to the logits of PyTorch") == 2
    assert output.err == ""
    values = json.loads(summary.read_text())
    assert values["tensors"] == len(open_checkpoint(str(laboratory_checkpoint)).weights.tensors)
    assert 0 < values["largest_logit_difference"] < 1e-4
    for file in laboratory_checkpoint.iterdir():
        if file.name != "config.json":
            assert (tmp_path / "hf" / file.name).read_bytes() == file.read_bytes(), file
    assert json.loads((tmp_path / "hf/config.json").read_text()) == json.loads(
        (laboratory_checkpoint / "config.json").read_text()
    )


def test_a_real_checkpoint_computes_the_same_after_conversion(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = shared / "data/checkpoints/stories260K-hf"
    assert run_convert(f"--source={source}", f"--target={tmp_path / 'b'}", "--to=orbax", "--verify") == 0
    assert run_convert(f"--source={tmp_path / 'b'}", f"--target={tmp_path / 'c'}", "--to=hf", "--verify") == 0
    assert (tmp_path / "c/model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


@pytest.mark.parametrize("to", ["orbax", "hf"])
def test_condensed_positions_are_verified_and_exported_in_the_form_that_others_know(
    tmp_path: Path, laboratory_checkpoint: Path, to: str
) -> None:
    source, target = tmp_path / "longchat", tmp_path / "target"
    shutil.copytree(laboratory_checkpoint, source)
    values = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(values | {"rope_condense_ratio": 8, "max_sequence_length": 9000}))
    assert run_convert(f"--source={source}", f"--target={target}", f"--to={to}", "--verify") == 0
    config = open_checkpoint(str(target)).config
    assert (config.rope_scaling.factor, config.context) == (8, 9000)
    if to == "hf":
        assert transformers.AutoConfig.from_pretrained(target).rope_parameters["factor"] == 8


def test_verification_notices_an_exchange_of_two_tensors(
    tmp_path: Path, laboratory_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    load = orbax_store.StoreWeights._load

    def exchanged(weights: orbax_store.StoreWeights, wanted: dict) -> dict:
        loaded = load(weights, wanted)
        other = {"gate_proj": "up_proj", "up_proj": "gate_proj"}
        return {name: loaded[".".join(other.get(part, part) for part in name.split("."))] for name in loaded}

    monkeypatch.setattr(orbax_store.StoreWeights, "_load", exchanged)
    arguments = [f"--source={laboratory_checkpoint}", f"--target={tmp_path / 'b'}", "--to=orbax", "--verify"]
    assert run_convert(*arguments) == 2
    assert "its logits differ from those of PyTorch by" in capsys.readouterr().err


def test_a_source_that_transformers_cannot_load_is_one_true_line(
    tmp_path: Path, laboratory_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fails(*arguments: object, **settings: object) -> None:
        raise KeyError("first line\nsecond line " + "x" * 1000)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_config", fails)
    target = tmp_path / "b"
    assert run_convert(f"--source={laboratory_checkpoint}", f"--target={target}", "--to=orbax", "--verify") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{laboratory_checkpoint}: transformers cannot load it (KeyError: " in line
    assert "what was converted is written and was not verified" in line
    assert len(line) < 700
    assert open_checkpoint(str(target)).config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target=b", "--to=orbax"], "source"),
        (["--source=a", "--target=b", "--to=flax"], "to"),
        (["--source=./absent", "--target=b", "--to=orbax"], "./absent: no such folder"),
        (["--source=a", "--target=b", "--to=hf", "--shard_size=0"], "shard_size"),
        (["--source=a", "--target=b", "--to=hf", "--swiftly"], "swiftly"),
    ],
)
def test_wrong_arguments_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_convert(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("judgelm-convert: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def test_an_existing_target_or_summary_is_refused(
    tmp_path: Path, laboratory_checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    summary = tmp_path / "summary.json"
    arguments = [f"--source={laboratory_checkpoint}", f"--target={tmp_path / 'b'}", "--to=orbax"]
    assert run_convert(*arguments) == 0
    assert run_convert(*arguments) == 2
    assert f"{tmp_path / 'b'}: exists already" in capsys.readouterr().err
    summary.write_text("mine")
    assert run_convert(*arguments, "--overwrite") == 0
    assert run_convert(arguments[0], f"--target={tmp_path / 'c'}", "--to=hf", f"--json={summary}") == 2
    assert summary.read_text() == "mine"
    assert not (tmp_path / "c").exists()


def test_verification_needs_torch_and_a_hugging_face_side_before_work_begins(
    tmp_path: Path, laboratory_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run_convert(f"--source={laboratory_checkpoint}", f"--target={tmp_path / 'b'}", "--to=orbax") == 0
    again = [f"--source={tmp_path / 'b'}", f"--target={tmp_path / 'c'}", "--to=orbax", "--verify"]
    assert run_convert(*again) == 2
    assert "--verify needs a Hugging Face checkpoint on one side" in capsys.readouterr().err
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    assert run_convert(*again[:2], "--to=hf", "--verify") == 2
    assert "--verify compares with PyTorch, which is not installed" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_a_checkpoint_without_tokenizer_is_converted_with_a_remark_and_a_broken_one_refused(
    tmp_path: Path, laboratory_checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((laboratory_checkpoint / name).read_bytes())
    assert run_convert(f"--source={bare}", f"--target={tmp_path / 'b'}", "--to=orbax") == 0
    assert "has no tokenizer, which judging needs" in capsys.readouterr().err
    (bare / "tokenizer.model").write_text("broken")
    assert run_convert(f"--source={bare}", f"--target={tmp_path / 'c'}", "--to=orbax") == 2
    assert "not a SentencePiece model" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
