"""Low-rank adapters merged into the tensors of a base checkpoint when these are read, one tensor at a time."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from judgelm_jax.checkpoints.tensor_names import Weights
from judgelm_jax.devices.sharding import put
from judgelm_jax.model import lora

# A [rank, in], B [out, rank] and what their product is multiplied by.
Pair = tuple[np.ndarray, np.ndarray, float]


class MergedWeights:
    """A base checkpoint with adapters merged in, in the dtype of the base's tensors.

    `pairs` reads the adapter of a weight, by the Hugging Face name of that weight.
    """

    def __init__(self, base: Weights, pairs: Mapping[str, Callable[[], Pair]]):
        self._base, self._pairs = base, pairs
        self.tensors = base.tensors

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: self._merged(name, weight) for name, weight in self._base.read(names).items()}

    def arrays(self, shardings: Mapping[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
        placed = {}
        for name, sharding in shardings.items():
            if name in self._pairs:
                placed[name] = put(self.read([name])[name], sharding)
            else:
                placed |= self._base.arrays({name: sharding})
        return placed

    def _merged(self, name: str, weight: np.ndarray) -> np.ndarray:
        return lora.merged(weight, *self._pairs[name]()) if name in self._pairs else weight
