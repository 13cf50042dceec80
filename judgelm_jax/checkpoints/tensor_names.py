"""The form of a Hugging Face checkpoint: which tensor is which parameter, and what must be there.

Both directions use one table. A weight keeps its published layout `[out, in]`, so conversion is renaming and the round
trip changes no bit.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import jax
import ml_dtypes
import numpy as np
from tqdm import tqdm

from judgelm_jax.errors import InputError
from judgelm_jax.model import parameters
from judgelm_jax.model.config import ModelConfig

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}

# Beside these, what only converted folders hold: see `quantizing`.
STORED_DTYPES = DTYPES | {"int8": np.dtype(np.int8)}

_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
# The end of the names of buffers that old versions of transformers stored; they follow from the config.
_DERIVED = "rotary_emb.inv_freq"


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """One stored tensor: its path in the tree of parameters, its layer (None: outside the layers), its shape, and the only
    dtype that it can have (None: any of `DTYPES`)."""

    path: parameters.Path
    layer: int | None
    shape: tuple[int, ...]
    dtype: str | None = None


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """What a file says of a tensor. `dtype` is its name there; only those of `STORED_DTYPES` can be read."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * STORED_DTYPES[self.dtype].itemsize


class Weights(Protocol):
    """The tensors of a checkpoint on disk, by their Hugging Face names."""

    tensors: dict[str, StoredTensor]

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Whole tensors in host memory, in their stored dtype."""

    def arrays(self, shardings: Mapping[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
        """The named tensors in their stored dtype, placed as their shardings say."""


def tensor_table(config: ModelConfig) -> dict[str, TensorSpec]:
    """Hugging Face name → path and shape of every tensor that the model declares, in the order of the forward pass."""
    table: dict[str, TensorSpec] = {}
    tensors = parameters.declared(config).items()
    for of_layers, group in itertools.groupby(tensors, key=lambda item: item[1].of_layers):
        own = list(group)
        for layer in range(config.num_layers) if of_layers else (None,):
            for path, tensor in own:
                shape = tensor.shape[1:] if of_layers else tensor.shape
                dtype = None if tensor.dtype is None else np.dtype(tensor.dtype).name
                table[_hf_name(path, layer)] = TensorSpec(path, layer, shape, dtype)
    return table


def _hf_name(path: parameters.Path, layer: int | None) -> str:
    first, *rest = path
    inside = [first, *rest] if layer is None else [first, str(layer), *rest]
    return ".".join(inside if first == "lm_head" else ["model", *inside])


def check_weights(folder: Path, weights: Weights, config: ModelConfig) -> None:
    """Compares what is stored with what the config needs.

    Buffers that follow from the config are ignored, and so is a head that repeats the tied embedding.

    Raises:
      InputError: names all tensors that are missing, too many, or of another shape or dtype, in one line.
    """
    table = tensor_table(config)
    missing = [name for name in table if name not in weights.tensors]
    extra, misshaped, mistyped = [], [], []
    for name, stored in weights.tensors.items():
        if name not in table:
            repeats = name == _HEAD and _same_as_embedding(weights)
            if not repeats and not name.endswith(_DERIVED):
                extra.append(name)
        elif stored.shape != table[name].shape:
            misshaped.append(f"{name} is {list(stored.shape)} instead of {list(table[name].shape)}")
        elif stored.dtype != table[name].dtype and (table[name].dtype or stored.dtype not in DTYPES):
            mistyped.append(f"{name} is {stored.dtype}")
    faults = {
        "missing tensors": missing,
        "tensors that the model does not have": sorted(extra),
        "wrong shapes": sorted(misshaped),
        f"dtypes other than {', '.join(DTYPES)}": sorted(mistyped),
    }
    found = "; ".join(f"{what}: {', '.join(names)}" for what, names in faults.items() if names)
    if found:
        raise InputError(f"{folder}: the weights do not fit the config ({found}); fetch the checkpoint again")


def stored_bytes(weights: Weights, config: ModelConfig) -> int:
    """The size of all tensors of the table, as they are stored."""
    return sum(weights.tensors[name].nbytes for name in tensor_table(config))


def writing_bar(weights: Weights, config: ModelConfig) -> tqdm:
    """A progress bar on stderr that counts bytes of tensors; silent where stderr is no terminal."""
    return tqdm(total=stored_bytes(weights, config), desc="writing", unit="B", unit_scale=True, disable=None)


def grouped(tensors: Mapping[str, StoredTensor], names: Iterable[str], limit: int) -> list[list[str]]:
    """The names in their order, in groups whose tensors have at most `limit` bytes (or one tensor)."""
    groups: list[list[str]] = []
    free = 0
    for name in names:
        size = tensors[name].nbytes
        if not groups or size > free:
            groups.append([])
            free = limit
        groups[-1].append(name)
        free -= size
    return groups


def _same_as_embedding(weights: Weights) -> bool:
    if weights.tensors[_HEAD] != weights.tensors.get(_EMBEDDING) or weights.tensors[_HEAD].dtype not in DTYPES:
        return False
    both = weights.read([_HEAD, _EMBEDDING])
    return np.array_equal(both[_HEAD].view(np.uint8), both[_EMBEDDING].view(np.uint8))
