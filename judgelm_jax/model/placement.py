"""Where and how a forward pass runs."""

import dataclasses

from jax.sharding import Mesh


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where and how a forward pass runs; hashable, so that it can be a static argument.

    `remat` says what a backward pass computes again instead of keeping it: `none`; `dots`, all but the results of matrix
    products with weights; `full`, everything but the residual stream between layers. `wide_results`: products of
    bfloat16 with weights are made in float32 and rounded, which takes half the time on CPUs (`matrix_product`).
    """

    mesh: Mesh | None = None
    attention: str = "xla"
    remat: str = "none"
    wide_results: bool = False


DEFAULT = Placement()
