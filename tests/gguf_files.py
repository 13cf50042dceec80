"""Small GGUF files of the Llama architecture, and what `transformers` and we make of them."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.errors import InputError
from judgelm_jax.model import decoder

# Rows of the blocks that the package can unpack and not pack must be made by hand: random bytes with small scales.
_UNPACKED_ONLY = {"Q6_K", "Q4_K"}
WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, WORDS = 256, 512, 2, 4, 2, 64, 96
TOKENS = np.random.default_rng(0).integers(3, WORDS, (2, 40))


def tensors(tied: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights by llama.cpp's names, in its order of queries and keys."""
    rng = np.random.default_rng(seed)
    queries, keys = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (WORDS, WIDTH), "output_norm": (WIDTH,)}
    if not tied:
        shapes["output"] = (WORDS, WIDTH)
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_norm": (WIDTH,),
                "attn_q": (queries, WIDTH),
                "attn_k": (keys, WIDTH),
                "attn_v": (keys, WIDTH),
                "attn_output": (WIDTH, queries),
                "ffn_norm": (WIDTH,),
                "ffn_gate": (HIDDEN, WIDTH),
                "ffn_up": (HIDDEN, WIDTH),
                "ffn_down": (WIDTH, HIDDEN),
            }.items()
        }
    return {
        f"{name}.weight": (rng.normal(0, 0.06, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def blocks(values: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """The bytes of a matrix in a type; of those that cannot be packed, random ones whose scales are small numbers."""
    if kind.name not in _UNPACKED_ONLY:
        return gguf.quantize(values, kind)
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(len(values))
    raw = rng.integers(0, 256, (values.shape[0], values.shape[1] // elements, size), dtype=np.uint8)
    scale = np.frombuffer(np.float16(2e-5).tobytes(), np.uint8)
    for start in (size - 2,) if kind.name == "Q6_K" else (0, 2):
        raw[..., start : start + 2] = scale
    return raw.reshape(values.shape[0], -1)


def write(
    path: Path,
    kind: str = "F32",
    tied: bool = False,
    change: dict[str, Any] | None = None,
    more: dict[str, np.ndarray] | None = None,
    tokenizer: Any = None,
    seed: int = 0,
) -> None:
    """A small model of the Llama architecture; `change` sets or (None) leaves out values of its metadata."""
    writer = gguf.GGUFWriter(path, "llama")
    values = {
        "block_count": LAYERS,
        "context_length": 64,
        "embedding_length": WIDTH,
        "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 5000.0,
        "rope.dimension_count": HEAD_DIM,
        "vocab_size": WORDS,
    } | (change or {})
    for key, value in values.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
        if value is not None:
            add.get(type(value), writer.add_array)(f"llama.{key}", value)
    if tokenizer is not None:
        tokenizer(writer)
    wanted = gguf.GGMLQuantizationType[kind]
    for name, tensor in (tensors(tied, seed) | (more or {})).items():
        if tensor.ndim == 1 or kind == "F32":
            writer.add_tensor(name, tensor)
        elif kind == "F16":
            writer.add_tensor(name, tensor.astype(np.float16))
        else:
            writer.add_tensor(name, blocks(tensor, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def theirs(path: Path) -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


def logits_of(model: torch.nn.Module, ids: np.ndarray = TOKENS) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(ids)).logits.numpy()


def our_logits(model: str, ids: np.ndarray = TOKENS) -> np.ndarray:
    checkpoint = open_checkpoint(model)
    return np.asarray(decoder.logits(checkpoint.load(None, "float32"), checkpoint.config, ids))


def fault_of(path: Path) -> str:
    with pytest.raises(InputError) as raised:
        open_checkpoint(str(path))
    assert "\n" not in str(raised.value)
    return str(raised.value)
