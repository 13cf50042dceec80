"""Conversion to int8: what is written, what opens it, and what refuses it."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.checkpoints.quantizing import in_int8
from judgelm_jax.commands import convert as command
from judgelm_jax.commands.command_line import run
from judgelm_jax.devices import memory
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.errors import InputError
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.judge import Judge
from judgelm_jax.model import parameters
from judgelm_jax.training.programs import make_program
from judgelm_jax.training_config import TrainConfig


def run_convert(*arguments: str) -> int:
    command.FLAGS.unparse_flags()
    for name in command.FLAGS:
        command.FLAGS[name].unparse()
    return run(command.main, command.FLAGS, "convert", list(arguments))


@pytest.fixture(scope="module")
def folders(laboratory_checkpoint, tmp_path_factory):
    """The checkpoint in int8, as the command writes it; and in Hugging Face form, with weights rounded by hand."""
    folder = tmp_path_factory.mktemp("int8")
    arguments = [f"--source={laboratory_checkpoint}", f"--target={folder / 'small'}", "--to=orbax", "--quantize=int8"]
    assert run_convert(*arguments, f"--json={folder / 'summary.json'}") == 0
    shutil.copytree(laboratory_checkpoint, folder / "rounded")
    tensors = load_file(folder / "rounded/model.safetensors")
    for name, tensor in tensors.items():
        if tensor.ndim == 2:
            step = tensor.double().abs().amax(dim=1, keepdim=True) / 127
            tensors[name] = ((tensor.double() / step).round() * step).float()
    save_file(tensors, folder / "rounded/model.safetensors", metadata={"format": "pt"})
    return folder


def stored(folder: Path) -> int:
    """Bytes of the files that hold tensors."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and "/d/" in str(file))


def test_half_of_the_memory(folders, laboratory_checkpoint, tmp_path, one_device):
    """A quarter of float32 and half of bfloat16, but for norms and a scale for each row: in files and on devices."""
    convert(open_checkpoint(str(laboratory_checkpoint)), tmp_path / "whole", "orbax")
    whole, small = (open_checkpoint(str(folder)) for folder in (tmp_path / "whole", folders / "small"))
    table = parameters.declared(small.config)
    values = sum(tensor.size for tensor in table.values() if tensor.is_matrix)
    others = 4 * sum(tensor.size for tensor in table.values() if not tensor.is_matrix)
    of_small = sum(tensor.nbytes for tensor in small.weights.tensors.values())
    assert of_small == values + others
    assert json.loads((folders / "summary.json").read_text())["bytes"] == of_small
    assert stored(folders / "small") < 0.3 * stored(tmp_path / "whole")
    on_device = [
        memory.bytes_on_device(one.load_unstacked(parameters.param_shardings(one.config, one_device), "bfloat16"))
        for one in (whole, small)
    ]
    assert on_device[1] < 0.56 * on_device[0]


@pytest.mark.parametrize(
    ("mode", "mesh"),
    [
        ("scores", "data:1"),
        ("explain", "tensor:2"),
        pytest.param("distribution", "fsdp:2", marks=[pytest.mark.slow, pytest.mark.optimized]),
    ],
)
def test_it_judges_as_a_float_model_with_the_rounded_weights(folders, mode, mesh):
    settings = JudgeConfig(mode=mode, dtype="float32", max_new_tokens=8, score_grid="1:10:3")
    config = MeshConfig.parse(mesh)
    devices = make_mesh(config, jax.devices()[: config.fsdp * config.tensor])
    found, expected = (
        [
            Judge.load(str(folders / name), devices, settings).compare(question, "Seventeen is prime.", "No idea at all.")
            for question in ("Is 17 a prime number?", "Name a prime.")
        ]
        for name in ("small", "rounded")
    )
    for one, other in zip(found, expected, strict=True):
        assert one.row["pred_text"] == other.row["pred_text"]
        assert one.scores == other.scores
        if mode == "distribution":
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)


def test_a_copy_keeps_every_bit_and_has_the_same_fingerprint(folders, laboratory_checkpoint, tmp_path):
    small = open_checkpoint(str(folders / "small"))
    convert(small, tmp_path / "copy", "orbax")
    copy = open_checkpoint(str(tmp_path / "copy"))
    assert copy.config == small.config
    assert copy.fingerprint == small.fingerprint != open_checkpoint(str(laboratory_checkpoint)).fingerprint
    names = list(small.weights.tensors)
    for name, tensor in copy.weights.read(names).items():
        np.testing.assert_array_equal(tensor, small.weights.read([name])[name])


def refused(capsys, *arguments: str) -> str:
    assert run_convert(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_what_int8_is_not_for_is_one_line(folders, laboratory_checkpoint, tmp_path, capsys):
    small, target = f"--source={folders / 'small'}", f"--target={tmp_path / 'target'}"
    whole = f"--source={laboratory_checkpoint}"
    assert "--to=hf does not write" in refused(capsys, small, target, "--to=hf")
    assert "int8 weights already" in refused(capsys, small, target, "--to=orbax", "--quantize=int8")
    assert "--quantize=int8 is a form of --to=orbax" in refused(capsys, whole, target, "--to=hf", "--quantize=int8")
    assert "leave --verify out" in refused(capsys, whole, target, "--to=orbax", "--quantize=int8", "--verify")
    assert "--verify needs a Hugging Face checkpoint" in refused(capsys, small, target, "--to=orbax", "--verify")
    assert not (tmp_path / "target").exists()


def test_it_is_not_trained(folders, one_device):
    with pytest.raises(InputError, match="int8, which are to judge with; train the checkpoint"):
        make_program(TrainConfig(), open_checkpoint(str(folders / "small")).config, one_device, steps=1)


def test_adapters_are_not_merged_into_it(folders, tmp_path):
    import peft
    import transformers

    base = transformers.AutoModelForCausalLM.from_pretrained(folders / "rounded")
    peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    assert open_checkpoint(str(tmp_path / "adapter"), str(folders / "rounded")).config.int8 is False
    with pytest.raises(InputError, match="int8 weights, which adapters cannot be merged into"):
        open_checkpoint(str(tmp_path / "adapter"), str(folders / "small"))


def test_weights_that_are_not_finite_are_refused(laboratory_checkpoint, tmp_path):
    shutil.copytree(laboratory_checkpoint, tmp_path / "broken")
    tensors = load_file(tmp_path / "broken/model.safetensors")
    name = next(name for name in tensors if name.endswith("up_proj.weight"))
    tensors[name][1, 2] = torch.nan
    save_file(tensors, tmp_path / "broken/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"{name}: holds values that are not finite"):
        convert(in_int8(open_checkpoint(str(tmp_path / "broken"))), tmp_path / "target", "orbax")
    assert not (tmp_path / "target").exists()
