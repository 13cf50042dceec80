"""PyTorch's model on a Hugging Face folder, with one layer in memory at a time.

`transformers` gives the computation, and the libraries of the file formats read the tensors: nothing of ours but the list of
files is used, so that the logits are another program's.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
import transformers

from judgelm_jax.checkpoints.hf_reading import weight_files

Read = Callable[[str], torch.Tensor]


def logits_in_layers(folder: Path, ids: Sequence[int], rope_config: Any = None) -> np.ndarray:
    """Float64 logits [1, S, V] of a row of tokens.

    Each part of the model (embedding, a layer, norm, head) gets its tensors when its turn comes and gives them back after it.

    Args:
      rope_config: whose positions are used, in place of those of `config.json`.
    """
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.float64, trust_remote_code=False, attn_implementation="eager"
        )  # the only attention that knows the soft cap of Gemma 2
    decoder = model.model
    decoder.rotary_emb = type(decoder.rotary_emb)(rope_config or config)  # its numbers are computed, not stored
    read = _reader(folder)
    parts = {"model.embed_tokens": decoder.embed_tokens, "model.norm": decoder.norm, "lm_head": model.lm_head}
    parts |= {f"model.layers.{i}": layer for i, layer in enumerate(decoder.layers)}
    if config.tie_word_embeddings:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight, requires_grad=False)  # by itself, to come and go
    for prefix, module in parts.items():
        stored = "model.embed_tokens" if config.tie_word_embeddings and prefix == "lm_head" else prefix
        module.register_forward_pre_hook(_filled(stored, read))
        module.register_forward_hook(lambda module, *_: module.to("meta") and None)
    with torch.no_grad():
        return model.eval()(torch.tensor([list(ids)]), use_cache=False).logits.numpy()


def _filled(prefix: str, read: Read) -> Callable[..., None]:
    def fill(module: torch.nn.Module, *_: Any) -> None:
        tensors = {name: read(f"{prefix}.{name}") for name, _ in module.named_parameters()}
        module.load_state_dict(tensors, assign=True)
        if hasattr(module, "scalar_embed_scale"):  # Gemma's; a number of its own beside the tensors, which is not stored
            module.embed_scale = torch.tensor(module.scalar_embed_scale)

    return fill


def _reader(folder: Path) -> Read:
    """Reads a tensor of the folder by its name, as float64."""
    files: dict[str, Path] = {}
    for file in weight_files(folder):
        names = _names(file)
        files |= dict.fromkeys(names, file)

    def read(name: str) -> torch.Tensor:
        file = files[name]
        if file.suffix == ".safetensors":
            with safetensors.safe_open(file, framework="pt", backend="pread") as opened:
                return opened.get_tensor(name).double()
        return _mapped(file)[name].to(torch.float64, copy=True)

    return read


def _names(file: Path) -> list[str]:
    if file.suffix == ".safetensors":
        with safetensors.safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    return list(_mapped(file))


def _mapped(file: Path) -> dict[str, torch.Tensor]:
    """Opened for each tensor anew, as what was read through a map counts as memory while it is open."""
    import zipfile

    return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
