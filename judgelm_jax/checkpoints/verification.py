"""Comparing our forward pass with PyTorch's on one checkpoint."""

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from judgelm_jax.checkpoints.gguf_reading import GgufWeights
from judgelm_jax.checkpoints.hf_reading import SafetensorsWeights, TorchWeights
from judgelm_jax.checkpoints.opening import Checkpoint
from judgelm_jax.errors import InputError
from judgelm_jax.model import decoder
from judgelm_jax.model.config_rope import CONDENSED
from judgelm_jax.tokenization import load_tokenizer

TOLERANCE = 1e-3

_TEXT = (
    "Once upon a time there were two assistants who answered the same question. One wrote 12 short lines, the other "
    "a long page. Which answer was better, and why? The judge read both, thought for a while, and wrote: 7 9\n"
)


def transformers_reads(checkpoint: Checkpoint) -> bool:
    """Whether `transformers` reads a checkpoint as it is, so that a conversion can be compared with its source."""
    weights = checkpoint.weights
    return isinstance(weights, SafetensorsWeights | TorchWeights) or (isinstance(weights, GgufWeights) and weights.in_one_file)


def largest_difference(ours: Checkpoint, theirs: Path) -> float:
    """The largest absolute difference between the logits of `ours` here and those of `theirs` in PyTorch, in float32.

    Args:
      ours: any checkpoint with a tokenizer.
      theirs: a Hugging Face folder or a GGUF, which `transformers` loads without running any code of its own.

    Raises:
      InputError: `transformers` cannot load `theirs`.
    """
    import torch
    import transformers

    tokenizer = load_tokenizer(ours.tokenizer_folder)
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = (begin + tokenizer.encode(_TEXT))[: ours.config.context]
    with jax.default_matmul_precision("highest"):
        logits = decoder.logits(ours.load(None, jnp.float32), ours.config, jnp.asarray([ids]))
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    try:
        silent = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
        with _alone(theirs) as place, silent:  # its bar for GGUF cannot be turned off
            model = transformers.AutoModelForCausalLM.from_pretrained(
                place,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                gguf_file=theirs.name if theirs.is_file() else None,
            )
        # What transformers does not read: the scaling of a GGUF of Llama, and LongChat's own key.
        if ours.config.rope_scaling is not None and (theirs.is_file() or CONDENSED in ours.hf_config):
            scaled = transformers.AutoConfig.for_model(**ours.hf_config)
            model.model.rotary_emb = type(model.model.rotary_emb)(scaled)
    except Exception as error:  # it raises whatever its parts raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{theirs}: transformers cannot load it ({type(error).__name__}: {reason}), so nothing was compared; what was "
            "converted is written and was not verified"
        ) from error
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits.numpy()
    return float(np.max(np.abs(np.asarray(logits) - expected)))


@contextlib.contextmanager
def _alone(theirs: Path) -> Iterator[Path]:
    """A folder with the files of a checkpoint but for an adapter, which `transformers` would apply."""
    with tempfile.TemporaryDirectory(prefix="judgelm-verify-") as made:
        for file in [theirs] if theirs.is_file() else theirs.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(made) / file.name).symlink_to(file.absolute())
        yield Path(made)
