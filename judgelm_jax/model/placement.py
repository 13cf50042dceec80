"""Where and how a forward pass runs."""

import dataclasses

from jax.sharding import Mesh


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where and how a forward pass runs; hashable, so that it can be a static argument.

    `remat` says what a backward pass computes again instead of keeping it: `none`; `dots`, all but the results of matrix
    products with weights; `full`, everything but the residual stream between layers.
    """

    mesh: Mesh | None = None
    attention: str = "xla"
    remat: str = "none"

    @property
    def on_cpus(self) -> bool:
        return self.mesh is not None and self.mesh.devices.flat[0].platform == "cpu"


DEFAULT = Placement()
