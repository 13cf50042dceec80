"""Weights as int8 with a scale for each row, made when they are read, a tensor at a time."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from judgelm_jax.checkpoints.opening import Checkpoint
from judgelm_jax.checkpoints.tensor_names import StoredTensor, Weights, tensor_table
from judgelm_jax.errors import InputError
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.quantization import quantized

_WEIGHT, _SCALE = "weight", "scale"  # the last part of a name


class QuantizedWeights:
    """The tensors of another checkpoint with int8 matrices and float32 scales; norms and biases as they are.

    `config` is that of the result, with `int8`.
    """

    def __init__(self, base: Weights, config: ModelConfig):
        self._base = base
        self.tensors: dict[str, StoredTensor] = {}
        for name, spec in tensor_table(config).items():
            self.tensors[name] = base.tensors[name] if spec.dtype is None else StoredTensor(spec.shape, spec.dtype)

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for name in names:
            if name in found:
                continue
            matrix, _, last = name.rpartition(".")
            scale = f"{matrix}.{_SCALE}"
            if scale not in self.tensors or last not in (_WEIGHT, _SCALE):
                found |= self._base.read([name])
                continue
            weight = f"{matrix}.{_WEIGHT}"
            (values,) = self._base.read([weight]).values()
            if not np.isfinite(values.astype(np.float32)).all():
                raise InputError(f"{weight}: holds values that are not finite, which int8 cannot; take another checkpoint")
            both = dict(zip((weight, scale), quantized(values), strict=True))
            found |= {one: both[one] for one in both if one in names}
        return found

    def arrays(self, shardings: Mapping[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
        return {name: jax.device_put(tensor, shardings[name]) for name, tensor in self.read(list(shardings)).items()}


def in_int8(source: Checkpoint) -> Checkpoint:
    """The same checkpoint with int8 matrices.

    Raises:
      InputError: it has them already.
    """
    if source.config.int8:
        raise InputError(f"{source.folder}: has int8 weights already; name another source, or leave --quantize out")
    config = dataclasses.replace(source.config, int8=True)
    return dataclasses.replace(source, config=config, weights=QuantizedWeights(source.weights, config))
