"""Reading Hugging Face folders: every published form gives its tensors, and what is wrong with one is named."""

import json
import os
import pickle
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.tensor_names import tensor_table
from judgelm_jax.errors import InputError

FORMS = ["safetensors", "sharded safetensors", "bin", "sharded bin", "legacy bin"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def bits(tensor: torch.Tensor | np.ndarray) -> bytes:
    if isinstance(tensor, torch.Tensor):
        tensor = tensor.contiguous().view(torch.uint8).numpy()
    return np.ascontiguousarray(tensor).tobytes()


def fault_of(folder: Path) -> str:
    with pytest.raises(InputError) as raised:
        open_checkpoint(str(folder))
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_tensors_of_every_form_are_read_bit_by_bit(tmp_path: Path, write_checkpoint, form: str, dtype: torch.dtype) -> None:
    expected = write_checkpoint(tmp_path, dtype=dtype, form=form)
    if "sharded" in form:
        assert len(list(tmp_path.glob("*-of-*"))) > 1
    checkpoint = open_checkpoint(str(tmp_path))
    assert set(tensor_table(checkpoint.config)) == set(expected)
    read = checkpoint.weights.read(list(expected))
    for name, tensor in expected.items():
        assert read[name].dtype.name == str(dtype).removeprefix("torch.")
        assert read[name].shape == tuple(tensor.shape)
        assert bits(read[name]) == bits(tensor)


def test_the_table_names_what_transformers_names(write_checkpoint, tmp_path: Path) -> None:
    tensors = write_checkpoint(tmp_path)
    table = tensor_table(open_checkpoint(str(tmp_path)).config)
    assert {name: spec.shape for name, spec in table.items()} == {name: tuple(t.shape) for name, t in tensors.items()}
    assert table["model.layers.2.self_attn.k_proj.weight"].path == ("layers", "self_attn", "k_proj", "weight")
    assert table["model.layers.2.self_attn.k_proj.weight"].layer == 2


def test_safetensors_come_before_bin(tmp_path: Path, write_checkpoint) -> None:
    expected = write_checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"broken")
    weights = open_checkpoint(str(tmp_path)).weights
    assert bits(weights.read(["model.norm.weight"])["model.norm.weight"]) == bits(expected["model.norm.weight"])


def test_all_faults_of_the_tensors_are_named_at_once(tmp_path: Path, write_checkpoint) -> None:
    tensors = write_checkpoint(tmp_path)
    del tensors["model.layers.1.mlp.up_proj.weight"], tensors["lm_head.weight"]
    tensors["model.layers.3.mlp.up_proj.weight"] = torch.zeros(2)
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(2)
    tensors["model.norm.weight"] = torch.zeros(33)
    tensors["model.layers.2.input_layernorm.weight"] = torch.zeros(32, dtype=torch.int8)
    save_file(tensors, tmp_path / "model.safetensors")
    fault = fault_of(tmp_path)
    assert "missing tensors: model.layers.1.mlp.up_proj.weight, lm_head.weight" in fault
    assert "does not have: model.layers.0.self_attn.q_proj.bias, model.layers.3.mlp.up_proj.weight" in fault
    assert "wrong shapes: model.norm.weight is [33] instead of [32]" in fault
    assert "model.layers.2.input_layernorm.weight is I8" in fault


def test_a_head_that_repeats_the_tied_embedding_is_ignored_and_another_is_refused(tmp_path: Path, write_checkpoint) -> None:
    tensors = write_checkpoint(tmp_path, tied=True, dtype=torch.bfloat16)
    head = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensor_table(open_checkpoint(str(tmp_path)).config)
    head[0, 0] += 1
    save_file(tensors | {"lm_head.weight": head}, tmp_path / "model.safetensors")
    assert "tensors that the model does not have: lm_head.weight" in fault_of(tmp_path)


class Malice:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_bin_file_that_executes_code_is_refused_and_does_not_execute_it(tmp_path: Path, write_checkpoint, form: str) -> None:
    folder, trace = tmp_path / "model", tmp_path / "executed"
    tensors = write_checkpoint(folder, form="bin")
    file = folder / "pytorch_model.bin"
    content = {**tensors, "x": Malice(trace)}
    if form == "pickle":
        file.write_bytes(pickle.dumps(content["x"]))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    assert f"{file}: broken, or holds code beside tensors, which was not run" in fault_of(folder)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Malice(trace)))  # what would have happened
    assert trace.exists()


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"state_dict": {"a": torch.zeros(2)}}, {1: torch.zeros(2)}])
def test_a_bin_file_that_holds_something_else_is_refused(tmp_path: Path, write_checkpoint, content: object) -> None:
    write_checkpoint(tmp_path, form="bin")
    torch.save(content, tmp_path / "pytorch_model.bin")
    assert "pytorch_model.bin: is no table of plain tensors by name" in fault_of(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, write_checkpoint, kept: int) -> None:
    write_checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert f"{file}: broken or cut off" in fault_of(tmp_path)


def test_a_bin_file_that_was_cut_off_is_named(tmp_path: Path, write_checkpoint) -> None:
    write_checkpoint(tmp_path, form="bin")
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-2000])
    assert f"{file}: broken" in fault_of(tmp_path)


@pytest.mark.parametrize(
    "name", ["../elsewhere.safetensors", "/etc/elsewhere.safetensors", "a\\b.safetensors", "config.json", 7]
)
def test_an_index_may_name_only_weight_files_beside_it(tmp_path: Path, write_checkpoint, name: object) -> None:
    write_checkpoint(tmp_path / "model", form="sharded safetensors")
    shutil.copy(next((tmp_path / "model").glob("*-of-*")), tmp_path / "elsewhere.safetensors")
    index = tmp_path / "model" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(content))
    assert f"{index}: the shard {name!r} is no .safetensors file of this folder" in fault_of(tmp_path / "model")


@pytest.mark.parametrize("content", ["{", "[]", '{"weight_map": []}', '{"weight_map": {"a": {}}}', "[" * 100_000, "{}"])
def test_a_broken_index_is_named(tmp_path: Path, write_checkpoint, content: str) -> None:
    write_checkpoint(tmp_path, form="sharded safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    assert f"{index}: no index of shards" in fault_of(tmp_path)


def test_missing_and_overlapping_shards_are_named(tmp_path: Path, write_checkpoint) -> None:
    write_checkpoint(tmp_path, form="sharded safetensors")
    first, second, *_ = sorted(tmp_path.glob("*-of-*"))
    tensors = load_file(second)
    save_file(tensors | load_file(first), second)
    assert f"repeats tensors of {first.name}" in fault_of(tmp_path)
    first.unlink()
    assert f"these shards are missing: {first.name}" in fault_of(tmp_path)


def test_a_folder_without_weights_or_config_is_refused(tmp_path: Path, write_checkpoint) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "has no model.safetensors, no pytorch_model.bin and no index" in fault_of(tmp_path)
    (tmp_path / "config.json").unlink()
    assert "config.json: there is no such file" in fault_of(tmp_path)


def test_bfloat16_bits_survive_even_as_nan(tmp_path: Path, write_checkpoint) -> None:
    tensors = write_checkpoint(tmp_path, dtype=torch.bfloat16, form="bin")
    pattern = torch.arange(32, dtype=torch.int16) + 0x7F80  # infinity and NaNs with payload
    tensors["model.norm.weight"] = pattern.view(torch.bfloat16)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    read = open_checkpoint(str(tmp_path)).weights.read(["model.norm.weight"])["model.norm.weight"]
    assert read.dtype == ml_dtypes.bfloat16
    assert read.view(np.int16).tolist() == pattern.tolist()
