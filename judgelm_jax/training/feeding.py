"""From rows on the hosts to batches on the devices: which process reads which rows of a batch."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from judgelm_jax.training.loss import Batch
from judgelm_jax.training.step import batch_sharding


class Feeding:
    """Rows of a batch lie split over `data` and `fsdp`; this process reads those of its own devices.

    It reads part number `part` of `parts` equal contiguous ones. Processes whose devices differ only along `tensor` read the
    same rows.
    """

    def __init__(self, rows: int, mesh: Mesh):
        self._rows, self._sharding = rows, batch_sharding(mesh)
        indices = self._sharding.addressable_devices_indices_map((rows, 1)).values()
        slices = [index[0].indices(rows) for index in indices if index is not None]
        first, end = min(start for start, _, _ in slices), max(end for _, end, _ in slices)
        self.parts = rows // (end - first)
        self.part = first // (end - first)

    def put(self, arrays: Mapping[str, np.ndarray]) -> Batch:
        """A batch on the devices, from this process's rows of it."""
        return Batch(
            **{
                name: jax.make_array_from_process_local_data(self._sharding, x, (self._rows, *x.shape[1:]))
                for name, x in arrays.items()
            }
        )


def batch_shapes(rows: int, mesh: Mesh, length: int, targets: int) -> Batch:
    """The shapes of a batch whose rows have `length` tokens and at most `targets` targets."""

    def shape(columns: int, dtype: Any) -> Any:
        return jax.ShapeDtypeStruct((rows, columns), dtype, sharding=batch_sharding(mesh))

    ids, indices = (shape(columns, np.int32) for columns in (length, targets))
    return Batch(ids, ids, ids, indices, indices, shape(targets, np.float32))
