"""Comparing our forward pass with PyTorch's on one checkpoint, of which either side holds one layer at a time."""

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from judgelm_jax.checkpoints.gguf_reading import GgufWeights
from judgelm_jax.checkpoints.hf_reading import SafetensorsWeights, TorchWeights
from judgelm_jax.checkpoints.opening import Checkpoint
from judgelm_jax.checkpoints.tensor_names import TensorSpec, tensor_table
from judgelm_jax.errors import InputError
from judgelm_jax.model import decoder, views
from judgelm_jax.model.config_rope import CONDENSED

# In float32 two right programs may differ by more where logits are large: of what float64 gives, SmolLM2's (up to 34) were 7e-5
# off here and 5e-5 in PyTorch. So weights and products are float64 on both sides; norms, softmax and the angles of positions
# stay float32, here as there.
TOLERANCE = 1e-4

_TEXT = (
    "Once upon a time there were two assistants who answered the same question. One wrote 12 short lines, the other "
    "a long page. Which answer was better, and why? The judge read both, thought for a while, and wrote: 7 9\n"
)


def transformers_reads(checkpoint: Checkpoint) -> bool:
    """Whether `transformers` reads a checkpoint as it is, so that a conversion can be compared with its source."""
    weights = checkpoint.weights
    return isinstance(weights, SafetensorsWeights | TorchWeights) or (isinstance(weights, GgufWeights) and weights.in_one_file)


def bytes_needed(ours: Checkpoint, theirs_in_layers: bool) -> int:
    """The host memory that comparing takes, beside the programs themselves.

    That is a layer as it is stored and as float64, or the output matrix so, whichever is more. Of a GGUF `transformers` makes
    a whole model.
    """
    table = tensor_table(ours.config)
    sizes: dict[int | str, int] = {}
    for name, spec in table.items():
        part = name if spec.layer is None else spec.layer
        sizes[part] = sizes.get(part, 0) + 8 * int(np.prod(spec.shape)) + ours.weights.tensors[name].nbytes
    whole = sum(8 * int(np.prod(spec.shape)) for spec in table.values())
    return max(sizes.values()) if theirs_in_layers else max(whole, *sizes.values())


def largest_difference(ours: Checkpoint, theirs: Path) -> float:
    """The largest absolute difference between the logits of `ours` here and those of `theirs` in PyTorch, both in float64.

    Args:
      ours: any checkpoint with a tokenizer.
      theirs: a Hugging Face folder or a GGUF, which `transformers` computes without running any code of its own.

    Raises:
      InputError: `transformers` cannot load `theirs`.
    """
    import transformers

    tokenizer = ours.required_tokenizer()
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    ids = (begin + tokenizer.encode(_TEXT))[: ours.config.context]
    logits = _logits(ours, ids)
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
    # What transformers does not read: the scaling of a GGUF of Llama, and LongChat's own key.
    rope_config = None
    if ours.config.rope_scaling is not None and (theirs.is_file() or CONDENSED in ours.hf_config):
        rope_config = transformers.AutoConfig.for_model(**ours.hf_config)
    try:
        if theirs.is_file():
            expected = _logits_of_gguf(theirs, ids, rope_config)
        else:
            from judgelm_jax.checkpoints.torch_layers import logits_in_layers

            expected = logits_in_layers(theirs, ids, rope_config)
    except Exception as error:  # it raises whatever its parts raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(
            f"{theirs}: transformers cannot load it ({type(error).__name__}: {reason}), so nothing was compared; what was "
            "converted is written and was not verified"
        ) from error
    return float(np.max(np.abs(logits - expected)))


def _logits(checkpoint: Checkpoint, ids: Sequence[int]) -> np.ndarray:
    """Float64 logits [1, S, V], computed by the model's own forward pass, which asks for a layer when it comes to it."""
    with jax.enable_x64(True), jax.default_device(_device()):
        outside = {name: spec for name, spec in tensor_table(checkpoint.config).items() if spec.layer is None}
        (embedding,) = (name for name, spec in outside.items() if spec.path[0] == "embed_tokens")
        (norm,) = (name for name, spec in outside.items() if spec.path[0] == "norm")
        head = next((name for name, spec in outside.items() if spec.path[0] == "lm_head"), embedding)
        used, tokens = np.unique(ids, return_inverse=True)  # of the embedding only these rows stay in memory
        rows = checkpoint.weights.read([embedding])[embedding][used].astype(np.float64)
        params: dict[str, Any] = {
            "embed_tokens": {"weight": jnp.asarray(rows)},
            "layers": _Layers(checkpoint),
            "norm": {"weight": _on_device(checkpoint, [norm])[norm]},
        }
        row = jnp.asarray(tokens.reshape(1, -1), jnp.int32)
        hidden, _ = decoder.forward(params, checkpoint.config, row, views.whole_rows(row))
        return np.asarray(
            decoder.head({"lm_head": {"weight": _on_device(checkpoint, [head])[head]}}, checkpoint.config, hidden)
        )


class _Layers(Sequence):
    """The parameters of the layers, each read when it is asked for and kept by nobody here."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint, self._table = checkpoint, tensor_table(checkpoint.config)

    def __len__(self) -> int:
        return self._checkpoint.config.num_layers

    def __getitem__(self, layer: Any) -> Any:
        specs: dict[str, TensorSpec] = {name: spec for name, spec in self._table.items() if spec.layer == layer}
        weights = _on_device(self._checkpoint, list(specs))
        params: dict[str, Any] = {}
        for name, spec in specs.items():
            *above, last = spec.path[1:]
            node = params
            for key in above:
                node = node.setdefault(key, {})
            node[last] = weights[name]
        return params


def _on_device(checkpoint: Checkpoint, names: list[str]) -> dict[str, jax.Array]:
    """Tensors by the way on which judging loads them, as float64."""
    stored = checkpoint.weights.arrays(dict.fromkeys(names, jax.sharding.SingleDeviceSharding(_device())))
    return {name: stored.pop(name).astype(jnp.float64) for name in names}


def _device() -> jax.Device:
    """The CPU, as PyTorch's: TPUs have no float64."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return jax.local_devices()[0]


def _logits_of_gguf(file: Path, ids: Sequence[int], rope_config: Any) -> np.ndarray:
    """`transformers` reads a GGUF as a whole only."""
    import torch
    import transformers

    silent = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    with _alone(file) as place, silent:  # its bar for GGUF cannot be turned off
        model = transformers.AutoModelForCausalLM.from_pretrained(
            place, dtype=torch.float32, local_files_only=True, trust_remote_code=False, gguf_file=file.name
        )
    if rope_config is not None:
        model.model.rotary_emb = type(model.model.rotary_emb)(rope_config)
    with torch.no_grad():
        return model.double()(torch.tensor([list(ids)])).logits.numpy()


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[Path]:
    """A folder with nothing but this file, beside which `transformers` would find others."""
    with tempfile.TemporaryDirectory(prefix="judgelm-verify-") as made:
        (Path(made) / file.name).symlink_to(file.absolute())
        yield Path(made)
