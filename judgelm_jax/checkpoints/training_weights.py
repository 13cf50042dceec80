"""The weights in a training checkpoint, where all layers of a parameter are one array: read a layer at a time."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorstore

from judgelm_jax.checkpoints.lora_merging import Pair
from judgelm_jax.checkpoints.tensor_names import DTYPES, StoredTensor, TensorSpec, tensor_table
from judgelm_jax.checkpoints.training_run import STATE
from judgelm_jax.errors import InputError
from judgelm_jax.model import lora
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.training_config import LoraConfig


class StackedWeights:
    """The float32 masters of a full fine-tune as tensors of dtype `dtype`, by their Hugging Face names.

    Raises:
      InputError: the checkpoint is broken.
    """

    def __init__(self, folder: Path, config: ModelConfig, dtype: str):
        self._folder, self._table = folder, tensor_table(config)
        self._arrays = {spec.path: _open(folder, spec.path) for spec in self._table.values()}
        self._dtype = DTYPES[dtype]
        self.tensors = {name: StoredTensor(spec.shape, dtype) for name, spec in self._table.items()}

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: _content(self._folder, self._array(self._table[name])[...]).astype(self._dtype) for name in names}

    def arrays(self, shardings: Mapping[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
        def placed(name: str, sharding: jax.sharding.Sharding) -> jax.Array:
            array = self._array(self._table[name])
            return jax.make_array_from_callback(
                self._table[name].shape, sharding, lambda index: _content(self._folder, array[index]).astype(self._dtype)
            )

        return {name: placed(name, sharding) for name, sharding in shardings.items()}

    def _array(self, spec: TensorSpec) -> Any:
        array = self._arrays[spec.path]
        return array if spec.layer is None else array[spec.layer]


def saved_pairs(folder: Path, config: ModelConfig, settings: LoraConfig) -> dict[str, Callable[[], Pair]]:
    """Readers of the adapters of a training checkpoint, by the Hugging Face name of the weight that each belongs to.

    Raises:
      InputError: the checkpoint is broken.
    """
    scale, pairs = lora.scale(settings), lora.pairs(config, settings)
    opened = {weight: [_open(folder, half) for half in pair] for weight, pair in pairs.items()}
    adapted = {name: spec for name, spec in tensor_table(config).items() if spec.path in pairs}

    def pair(spec: TensorSpec) -> Pair:
        a, b = (_content(folder, half[spec.layer]) for half in opened[spec.path])
        return a, b, scale

    return {name: functools.partial(pair, spec) for name, spec in adapted.items()}


def read_adapters(folder: Path, config: ModelConfig, settings: LoraConfig) -> dict[str, Any]:
    """The adapters of a training checkpoint in host memory, float32, in the structure of `lora.init`."""
    shapes = jax.eval_shape(lambda key: lora.init(config, settings, key), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _content(folder, _open(folder, tuple(key.key for key in path))), shapes
    )


def _open(folder: Path, path: tuple[str, ...]) -> Any:
    """The array of a trained parameter in an Orbax checkpoint."""
    kvstore = {"driver": "ocdbt", "base": (folder / STATE).absolute().as_uri(), "path": f"params.{'.'.join(path)}/"}
    try:
        return tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True, open=True).result()
    except ValueError as error:
        raise _broken(folder, error) from error


def _content(folder: Path, array: Any) -> np.ndarray:
    try:
        return array.read().result()
    except ValueError as error:
        raise _broken(folder, error) from error


def _broken(folder: Path, error: ValueError) -> InputError:
    reason = " ".join(str(error).partition("[")[0].split())[:120]
    return InputError(f"{folder}: a broken training checkpoint ({reason}); take another")
