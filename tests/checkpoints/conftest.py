"""Small checkpoints that `transformers` and `torch` themselves write, in every published form."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

WriteCheckpoint = Callable[..., dict[str, torch.Tensor]]


@pytest.fixture(scope="session")
def write_checkpoint() -> WriteCheckpoint:
    """A function that writes a checkpoint of three layers to a folder and returns its tensors by name."""

    def write(
        folder: Path, dtype: torch.dtype = torch.float32, form: str = "safetensors", tied: bool = False, seed: int = 0
    ) -> dict[str, torch.Tensor]:
        config = transformers.LlamaConfig(
            vocab_size=512,  # as the tokenizer of the laboratory
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
        )
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
        for parameter in model.parameters():  # norms too: ones everywhere would hide an exchange
            torch.nn.init.normal_(parameter, std=0.3)
        model = model.to(dtype)
        model.save_pretrained(folder, max_shard_size="20KB" if form == "sharded safetensors" else "1GB")
        tensors = {name: tensor.detach() for name, tensor in model.state_dict().items()}
        if tied:
            del tensors["lm_head.weight"]
        if "bin" in form:
            (folder / "model.safetensors").unlink()
            _write_bin(folder, tensors, form)
        return tensors

    return write


def _write_bin(folder: Path, tensors: dict[str, torch.Tensor], form: str) -> None:
    # As old versions of transformers wrote them: with buffers that follow from the config.
    stored = tensors | {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(3)}
    if form != "sharded bin":
        torch.save(stored, folder / "pytorch_model.bin", _use_new_zipfile_serialization=form != "legacy bin")
        return
    names = list(stored)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, inside in shards.items():
        torch.save({name: stored[name] for name in inside}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, inside in shards.items() for name in inside}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
