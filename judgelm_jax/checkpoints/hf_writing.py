"""Writing a Hugging Face checkpoint: its config, and its weights as safetensors files that never are in memory whole."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from judgelm_jax.checkpoints.tensor_names import DTYPES, Weights, grouped, stored_bytes, tensor_table, writing_bar
from judgelm_jax.model.config import ModelConfig

SHARD_BYTES = 5 * 10**9

_GROUP_BYTES = 256 * 2**20  # tensors in memory at once
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


def write_hf(folder: Path, weights: Weights, config: ModelConfig, hf_config: Mapping[str, Any], shard_bytes: int) -> None:
    """Writes `config.json` and the weights as safetensors into a folder, in the stored dtypes.

    Shards hold at most `shard_bytes` (or one tensor). One shard alone is named `model.safetensors` and has no index. A shard
    that exists is complete, from a call like this one that was cut short, and stays.
    """
    _write_json(folder / "config.json", hf_config)
    shards = grouped(weights.tensors, tensor_table(config), shard_bytes)
    placed: dict[str, str] = {}
    with writing_bar(weights, config) as bar:
        for number, names in enumerate(shards, start=1):
            single = len(shards) == 1
            file = "model.safetensors" if single else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            if not (folder / file).exists():
                write_safetensors(folder / file, weights, names)
            bar.update(sum(weights.tensors[name].nbytes for name in names))
            placed |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = stored_bytes(weights, config)
        _write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": placed})


def write_safetensors(path: Path, weights: Weights, names: Sequence[str]) -> None:
    """Writes tensors to a file, which appears when it is complete and on the disk; memory holds a group of them.

    What a call like this one that was cut short left is not written again. The `safetensors` library writes only what is in
    memory whole. The form: the length of the header in 8 bytes, the header as JSON with shapes and offsets, filled up with
    spaces, and the bytes of the tensors one after another.
    """
    # As the library orders them: the widest numbers first, so that each begins at a multiple of its width.
    ordered = sorted(names, key=lambda name: (-DTYPES[weights.tensors[name].dtype].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in ordered:
        stored = weights.tensors[name]
        begin, end = end, end + stored.nbytes
        header[name] = {"dtype": _DTYPES[stored.dtype], "shape": stored.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    text = len(text).to_bytes(8, "little") + text
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("r+b" if unfinished.exists() else "w+b") as file:
        written = file.seek(0, os.SEEK_END)
        if written <= len(text):
            written = 0
            file.seek(0)
            file.write(text)
        end = len(text)
        for group in grouped(weights.tensors, ordered, _GROUP_BYTES):
            begin, end = end, end + sum(weights.tensors[name].nbytes for name in group)
            if end < written:  # something follows it, so it was on the disk
                continue
            file.seek(begin)
            tensors = weights.read(group)
            for name in group:
                file.write(np.ascontiguousarray(tensors.pop(name)).reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        file.truncate(end)
    unfinished.rename(path)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
