"""Comparing our forward pass with PyTorch's on one checkpoint."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from judgelm_jax.checkpoints.opening import Checkpoint
from judgelm_jax.model import llama
from judgelm_jax.tokenization import load_tokenizer

TOLERANCE = 1e-3

_TEXT = (
    "Once upon a time there were two assistants who answered the same question. One wrote 12 short lines, the other "
    "a long page. Which answer was better, and why? The judge read both, thought for a while, and wrote: 7 9\n"
)


def largest_difference(ours: Checkpoint, theirs: Path) -> float:
    """The largest absolute difference between the logits of `ours` here and those of `theirs` in PyTorch, in float32.

    Args:
      ours: any checkpoint with a tokenizer.
      theirs: a Hugging Face folder, which `transformers` loads without running any code of its own.
    """
    import torch
    import transformers

    tokenizer = load_tokenizer(ours.tokenizer_folder)
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = (begin + tokenizer.encode(_TEXT))[: ours.config.context]
    with jax.default_matmul_precision("highest"):
        logits = llama.logits(ours.load(None, jnp.float32), ours.config, jnp.asarray([ids]))
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        theirs, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits.numpy()
    return float(np.max(np.abs(np.asarray(logits) - expected)))
