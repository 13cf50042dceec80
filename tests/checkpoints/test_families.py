"""Checkpoints of every family: conversion both ways changes no bit, and adapters are those of the `peft` library."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import peft
import pytest
import torch
import transformers
from family_models import make
from safetensors.torch import load_file, save_file

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.checkpoints.peft import write_peft
from judgelm_jax.checkpoints.verification import largest_difference
from judgelm_jax.errors import InputError
from judgelm_jax.model import decoder, lora, parameters
from judgelm_jax.model.config import LayerKind
from judgelm_jax.tokens.tokenization import TOKENIZER_FILES
from judgelm_jax.training_config import LORA_TARGETS, LoraConfig

TOKENS = np.random.default_rng(0).integers(3, 96, (2, 24))
OWN = {
    "qwen2, windows last": "model.layers.2.self_attn.k_proj.bias",
    "qwen3": "model.layers.1.self_attn.q_norm.weight",
    "gemma2": "model.layers.3.post_feedforward_layernorm.weight",
}


@pytest.mark.parametrize("case", ["mistral", "qwen2, windows last", "qwen3", "gemma2", "gemma3"])
def test_import_and_export_change_no_bit(tmp_path: Path, case: str) -> None:
    make(case, tmp_path / "a", torch.bfloat16)
    convert(open_checkpoint(str(tmp_path / "a")), tmp_path / "b", "orbax")
    convert(open_checkpoint(str(tmp_path / "b")), tmp_path / "c", "hf")
    expected, exported = (load_file(tmp_path / name / "model.safetensors") for name in "ac")
    assert exported.keys() == expected.keys()
    for name, tensor in expected.items():
        assert exported[name].dtype == torch.bfloat16
        assert torch.equal(exported[name].view(torch.uint8), tensor.view(torch.uint8))
    stated = json.loads((tmp_path / "a/config.json").read_text())
    assert json.loads((tmp_path / "c/config.json").read_text()) == stated
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "c")
    assert type(again).__name__ == stated["architectures"][0]


@pytest.mark.parametrize("case", ["qwen2, windows last", "gemma2", "gemma3"])
def test_verifying_holds_every_family_against_pytorch(tmp_path: Path, laboratory_checkpoint: Path, case: str) -> None:
    make(case, tmp_path, vocab_size=512)
    for name in TOKENIZER_FILES:
        if (laboratory_checkpoint / name).is_file():
            shutil.copy(laboratory_checkpoint / name, tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    assert largest_difference(checkpoint, tmp_path) < 1e-4
    off = dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config, pattern=(LayerKind(),)))
    assert largest_difference(off, tmp_path) > 0.01


@pytest.mark.parametrize("case", OWN)
def test_a_tensor_that_only_some_families_have_must_be_there(tmp_path: Path, case: str) -> None:
    make(case, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[OWN[case]]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"missing tensors: {OWN[case]}"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize("case", ["qwen2", "gemma3"])
def test_adapters_are_those_of_peft(tmp_path: Path, case: str) -> None:
    theirs = make(case, tmp_path / "base")
    checkpoint = open_checkpoint(str(tmp_path / "base"))
    setting = LoraConfig(rank=3, alpha=6.0, targets=LORA_TARGETS)
    rng = np.random.default_rng(1)
    initial = lora.init(checkpoint.config, setting, jax.random.key(0))
    adapters = jax.tree.map(lambda x: np.asarray(x) + rng.normal(0, 0.2, x.shape).astype(np.float32), initial)
    write_peft(tmp_path / "adapters", adapters, setting, str(tmp_path / "base"))
    attached = lora.attach(checkpoint.load(None, "float32"), adapters, setting)
    ours = np.asarray(jax.jit(decoder.logits, static_argnums=1)(attached, checkpoint.config, TOKENS))
    with torch.no_grad():
        plain = theirs(torch.tensor(TOKENS)).logits.numpy()
        adapted = peft.PeftModel.from_pretrained(theirs, tmp_path / "adapters")
        np.testing.assert_allclose(ours, adapted(torch.tensor(TOKENS)).logits.numpy(), atol=1e-4)
        merged = adapted.merge_and_unload().state_dict()
    assert np.abs(ours - plain).max() > 0.1
    opened = open_checkpoint(str(tmp_path / "adapters"))
    for name, tensor in opened.weights.read(list(opened.weights.tensors)).items():
        np.testing.assert_allclose(tensor, merged[name].numpy(), atol=1e-5)
    assert not [path for path in lora.declared(checkpoint.config, setting) if path[-1] == "bias"]
    assert len(lora.pairs(checkpoint.config, setting)) == sum(
        path[-2] in LORA_TARGETS and path[-1] == "weight" for path in parameters.declared(checkpoint.config)
    )
