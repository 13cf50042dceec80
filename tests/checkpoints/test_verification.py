"""Comparing with PyTorch: the same logits, with one layer of either side in memory at a time."""

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from judgelm_jax.checkpoints import open_checkpoint, torch_layers, verification
from judgelm_jax.checkpoints.tensor_names import tensor_table

IDS = [1, 7, 300, 7, 44, 0, 511]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", ["sharded safetensors", "sharded bin", "legacy bin"])
def test_both_sides_give_the_logits_of_a_whole_model(tmp_path: Path, write_checkpoint, form: str, tied: bool) -> None:
    tensors = write_checkpoint(tmp_path, form=form, tied=tied)
    if form == "sharded safetensors":
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    else:
        model = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(tmp_path))
        model.load_state_dict(tensors, strict=False)
    with torch.no_grad():
        expected = model.double().eval()(torch.tensor([IDS])).logits.numpy()
    np.testing.assert_allclose(torch_layers.logits_in_layers(tmp_path, IDS), expected, atol=1e-6)
    np.testing.assert_allclose(verification._logits(open_checkpoint(str(tmp_path)), IDS), expected, atol=1e-5)


def test_pytorch_holds_one_layer(tmp_path: Path, write_checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path)
    reader, living, most = torch_layers._reader, weakref.WeakSet(), []

    def watched(folder: Path) -> torch_layers.Read:
        read = reader(folder)

        def noted(name: str) -> torch.Tensor:
            tensor = read(name)
            living.add(tensor.untyped_storage())
            most.append(sum(storage.nbytes() for storage in living))
            return tensor

        return noted

    monkeypatch.setattr(torch_layers, "_reader", watched)
    torch_layers.logits_in_layers(tmp_path, IDS)
    assert max(most) == 512 * 32 * 8  # the embedding; a layer is smaller
    assert len(most) == len(tensor_table(open_checkpoint(str(tmp_path)).config))


def test_ours_asks_for_one_layer_at_a_time(tmp_path: Path, write_checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path)
    checkpoint = open_checkpoint(str(tmp_path))
    arrays, calls = checkpoint.weights.arrays, []
    monkeypatch.setattr(checkpoint.weights, "arrays", lambda wanted: calls.append(list(wanted)) or arrays(wanted))
    verification._logits(checkpoint, IDS)
    table = tensor_table(checkpoint.config)
    assert all(len({table[name].layer for name in names}) == 1 for names in calls)
    assert {name for names in calls for name in names} == table.keys() - {"model.embed_tokens.weight"}


def test_the_memory_that_it_needs_is_that_of_the_largest_part(tmp_path: Path, write_checkpoint) -> None:
    write_checkpoint(tmp_path, dtype=torch.bfloat16)
    checkpoint = open_checkpoint(str(tmp_path))
    # width 32, hidden 48, two of four heads for keys; 512 words: as bfloat16 and as float64
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48 + 2 * 32
    assert verification.bytes_needed(checkpoint, theirs_in_layers=True) == 10 * max(layer, 512 * 32)
    assert verification.bytes_needed(checkpoint, theirs_in_layers=False) == 8 * (3 * layer + 2 * 512 * 32 + 32)
