"""Judges that have learned nothing, as checkpoints in Hugging Face form."""

import json
from pathlib import Path

from judgelm_jax.laboratory.vocabulary import write_tokenizer
from judgelm_jax.model import config_json
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.training_config import ModelShape


def write_checkpoint(folder: Path, seed: int, context: int = 2048) -> ModelConfig:
    """Writes an untrained judge of about 150,000 parameters for prompts of any text: weights, config and tokenizer."""
    shape = ModelShape(hidden_size=64, intermediate_size=160, num_layers=2, num_heads=4, num_kv_heads=2, context=context)
    return _write(folder, seed, shape, write_tokenizer(folder))


def write_pupil(folder: Path, seed: int, shape: ModelShape) -> ModelConfig:
    """Writes an untrained judge of this shape, whose tokenizer has the sentences of the laboratory as tokens.

    Its weights are drawn five times as wide as those with which large models begin. At this width that is about
    1/√width, and the judge finds in half the steps that an answer is to be compared with the reference.
    """
    return _write(folder, seed, shape, write_tokenizer(folder, sentences=True))


def _write(folder: Path, seed: int, shape: ModelShape, vocabulary: int) -> ModelConfig:
    import numpy as np
    import safetensors.numpy

    from judgelm_jax.checkpoints.tensor_names import tensor_table

    config = shape.with_vocabulary(vocabulary)
    generator = np.random.default_rng(seed)
    tensors = {
        name: np.ones(entry.shape, np.float32)
        if len(entry.shape) == 1
        else generator.normal(0.0, 0.1, entry.shape).astype(np.float32)
        for name, entry in tensor_table(config).items()
    }
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_json.to_hf(config, "float32"), indent=2) + "\n", encoding="utf-8")
    return config
