"""How many devices lie along each axis of the mesh, as the flag `--mesh` says it. Imports no JAX."""

import dataclasses
import math

from judgelm_jax.errors import InputError

MESH_AXES = ("data", "fsdp", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; at most one axis is -1: whatever remains."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    @staticmethod
    def parse(text: str) -> "MeshConfig":
        """Reads the form of the `--mesh` flag, `data:2,tensor:4`. Axes that are not named have size 1.

        Raises:
          InputError: an unknown or double axis, a size that is no count, or more than one -1.
        """
        sizes: dict[str, int] = {}
        for part in text.split(","):
            axis, colon, size = part.strip().partition(":")
            if axis not in MESH_AXES or not colon or axis in sizes:
                raise InputError(
                    f"--mesh={text}: {part!r} is not AXIS:SIZE with one of the axes {', '.join(MESH_AXES)}, each once"
                )
            try:
                sizes[axis] = int(size)
            except ValueError as error:
                raise InputError(f"--mesh={text}: the size {size!r} is no whole number") from error
            if sizes[axis] < 1 and sizes[axis] != -1:
                raise InputError(f"--mesh={text}: the size of {axis} must be at least 1, or -1 for the remaining devices")
        if sum(size == -1 for size in sizes.values()) > 1:
            raise InputError(f"--mesh={text}: only one axis can be -1 (the remaining devices)")
        return MeshConfig(**{axis: sizes.get(axis, 1) for axis in MESH_AXES})

    def sizes(self, devices: int) -> tuple[int, int, int]:
        """The shape of the mesh over this many devices, in the order of `MESH_AXES`.

        Raises:
          InputError: the named sizes do not divide (or make up) the devices.
        """
        known = math.prod(size for size in (self.data, self.fsdp, self.tensor) if size != -1)
        free = -1 in (self.data, self.fsdp, self.tensor)
        if devices % known if free else devices != known:
            shape = ",".join(f"{axis}:{getattr(self, axis)}" for axis in MESH_AXES)
            raise InputError(f"the mesh {shape} does not fit {devices} devices; choose sizes whose product is {devices}")
        data, fsdp, tensor = (devices // known if size == -1 else size for size in (self.data, self.fsdp, self.tensor))
        return data, fsdp, tensor
