"""Checkpoints with random weights in sizes that are measured."""

from pathlib import Path
from typing import Any

from judgelm_jax.model import config_json
from judgelm_jax.model.config import ModelConfig

# Width, hidden width, layers, heads, tied embeddings.
SIZES: dict[str, tuple[int, int, int, int, bool]] = {
    "tiny": (64, 160, 2, 4, True),
    "15m": (288, 768, 6, 6, True),
    "110m": (768, 2048, 12, 12, True),
    "1b": (2048, 5632, 22, 16, False),
    "7b": (4096, 11008, 32, 32, False),
}


def model_config(size: str, vocabulary: int = 32000, context: int = 2048) -> ModelConfig:
    """The shape of a size by its name: `15m` and `110m` are those of llama2.c, `1b` is near TinyLlama's, `7b` that of LLaMA."""
    width, hidden, layers, heads, tied = SIZES[size]
    return ModelConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=width // heads,
        context=context,
        norm_epsilon=1e-5,
        rope_base=10000.0,
        rope_scaling=None,
        tied_embeddings=tied,
        bos_id=1,
        eos_ids=(2,),
    )


def write_random_checkpoint(folder: Path, config: ModelConfig, dtype: Any, seed: int) -> None:
    """Writes weights (normal, deviation 0.02; norms one) and config in Hugging Face form, a shard a layer."""
    import json

    import numpy as np
    import safetensors.numpy

    from judgelm_jax.checkpoints.tensor_names import tensor_table

    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    shards: dict[str, dict[str, Any]] = {}
    for name, spec in tensor_table(config).items():
        file = "outer" if spec.layer is None else f"layer-{spec.layer:03d}"
        shards.setdefault(f"model-{file}.safetensors", {})[name] = spec.shape
    index: dict[str, str] = {}
    for file, shapes in shards.items():
        tensors = {
            name: np.ones(shape, dtype)
            if len(shape) == 1
            else (generator.standard_normal(shape, np.float32) * np.float32(0.02)).astype(dtype)
            for name, shape in shapes.items()
        }
        safetensors.numpy.save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(config_json.to_hf(config, np.dtype(dtype).name), indent=2))
