"""The mesh, and the one table that maps logical axes to mesh axes."""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from judgelm_jax.devices.mesh_config import MESH_AXES, MeshConfig
from judgelm_jax.errors import InputError

# Logical axis → mesh axes. Matrices of layers are split over `fsdp` along their rows, for what is gathered along columns is
# transposed first (33 billion parameters: 10 GiB a device of eight), and tables along their model width; over `tensor` along
# heads, hidden units or words. Activations are split over `data` and `fsdp` along the batch and over `tensor` inside a layer.
LOGICAL_AXES: dict[str, tuple[str, ...] | str | None] = {
    "batch": ("data", "fsdp"),
    "sequence": None,
    "width": None,  # of an activation: the residual stream is whole on each device
    "layer": None,
    "embed": "fsdp",  # of a weight: its model width
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "head_dim": None,
    "hidden": "tensor",
    # Rows and columns of the matrices that read the residual stream.
    "query_rows": ("tensor", "fsdp"),
    "key_rows": ("tensor", "fsdp"),
    "hidden_rows": ("tensor", "fsdp"),
    "read": None,
}

LogicalAxes = tuple[str | None, ...]


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with the axes `data`, `fsdp`, `tensor` over `devices` (default: all). Axes of size 1 stay in it.

    Raises:
      InputError: the sizes do not fit the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = config.sizes(len(devices))
    return jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices)


def spec(axes: LogicalAxes) -> PartitionSpec:
    """The mesh axes of an array whose dimensions have these logical axes (None: not split).

    Raises:
      ValueError: two dimensions would be split over the same mesh axis.
    """
    physical = [None if axis is None else LOGICAL_AXES[axis] for axis in axes]
    used = [axis for entry in physical if entry is not None for axis in ([entry] if isinstance(entry, str) else entry)]
    if len(used) != len(set(used)):
        raise ValueError(f"the logical axes {axes} use a mesh axis twice: {physical}")
    return PartitionSpec(*physical)


def sharding(mesh: Mesh, axes: LogicalAxes, shape: tuple[int, ...] | None = None) -> NamedSharding:
    """The sharding of an array with these logical axes; with `shape`, checks that it divides.

    Raises:
      InputError: a dimension does not divide over its mesh axes.
    """
    result = NamedSharding(mesh, spec(axes))
    if shape is not None:
        for axis, size, entry in zip(axes, shape, result.spec, strict=True):
            names = [] if entry is None else [entry] if isinstance(entry, str) else list(entry)
            parts = int(np.prod([mesh.shape[name] for name in names], initial=1))
            if size % parts:
                raise InputError(
                    f"the mesh splits the axis {axis!r} over {'×'.join(names)} = {parts} devices, which does not divide its "
                    f"size {size}; choose another --mesh"
                )
    return result


def constrain(x: jax.Array, mesh: Mesh | None, axes: LogicalAxes) -> jax.Array:
    """Tells the compiler how an activation lies on the mesh; without a mesh, nothing."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec(axes)))


def put(array: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    """An array that every process has, laid out over the devices; each takes its own part."""
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, array.__getitem__)  # `device_put` would compare all processes
