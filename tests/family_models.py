"""Tiny models of every family, made by `transformers`, whose windows bind and whose every tensor is random."""

from pathlib import Path
from typing import Any

import torch
import transformers

FULL, SLIDING = "full_attention", "sliding_attention"
SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
WINDOW = {"sliding_window": 7, "use_sliding_window": True}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 7}
LINEAR = {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}

# Two orders of the kinds of layers, where a family has two kinds. `transformers` names the class.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, yarn": ("Llama", {"rope_parameters": YARN}),
    "mistral": ("Mistral", {"sliding_window": 7}),
    "mistral without a window": ("Mistral", {"sliding_window": None, "head_dim": 16, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2", {}),
    "qwen2, windows last": ("Qwen2", WINDOW | {"max_window_layers": 1, "tie_word_embeddings": True}),
    "qwen2, windows first": ("Qwen2", WINDOW | {"layer_types": [SLIDING, SLIDING, FULL, FULL]}),
    "qwen3": ("Qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3, windows last": ("Qwen3", WINDOW | {"max_window_layers": 2, "head_dim": 8}),
    "gemma2": ("Gemma2", GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma2, full first": ("Gemma2", GEMMA | {"layer_types": [FULL, SLIDING, FULL, SLIDING], "tie_word_embeddings": False}),
    "gemma3": ("Gemma3", GEMMA | {"layer_types": [SLIDING, SLIDING, FULL, SLIDING]}),
    "gemma3, full first": (
        "Gemma3",
        GEMMA
        | {"layer_types": [FULL, SLIDING, FULL, SLIDING], "num_key_value_heads": 1}
        | {"rope_parameters": {FULL: LINEAR, SLIDING: {"rope_type": "default"}}},
    ),
}  # fmt: skip


def make(case: str, folder: Path, dtype: torch.dtype = torch.float32, **sizes: int) -> Any:
    """Writes the model of a case, with other sizes where given, to a folder and returns it.

    Its attention is spelled out, for only that has soft caps.
    """
    name, changes = CASES[case]
    config = getattr(transformers, f"{name}{'Text' if name == 'Gemma3' else ''}Config")(**SIZES | changes | sizes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForCausalLM")._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for key, tensor in model.named_parameters():
            if key.endswith("norm.weight"):
                tensor.uniform_(-0.5, 0.5) if name.startswith("Gemma") else tensor.uniform_(0.5, 1.5)
            elif key.endswith("bias"):
                tensor.normal_()
    model = model.to(dtype)
    model.save_pretrained(folder)
    return model
