"""A sum over chunks of targets that keeps no logits, and adds up the gradient of the output matrix in float32.

Letters of the shapes: N chunks, G devices along the batch, C targets of a chunk and device, R rows of a device, E model
width, V words.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from judgelm_jax.devices.sharding import LOGICAL_AXES, constrain


class Pieces(NamedTuple):
    """Targets in chunks: `hidden` [N, G, C, E] predicts `ids` int32 [N, G, C], which count for the row `owners` int32
    [N, G, C] of their device where `mask` float32 [N, G, C] is not 0."""

    hidden: jax.Array
    ids: jax.Array
    owners: jax.Array
    mask: jax.Array


# (output matrix, targets of one device, whose leaves are [C, ...]) → what they add to the rows of the device, float32 [R]
Part = Callable[[Any, Pieces], jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def add_up(part: Part, mesh: Mesh | None, rows: int, output: Any, pieces: Pieces) -> jax.Array:
    """The sum of `part` over the chunks, float32 [G, R]; chunks without targets cost nothing.

    The backward pass keeps the arguments only and computes each chunk again. It adds up the gradient of the output matrix in
    float32, on each device by itself, and over the devices once, at the end: a sum over many chunks in bfloat16 would lose
    what is small, and one over devices after each chunk would move the whole matrix as often.
    """

    output = _gathered(output, mesh)

    def add(total: jax.Array, piece: Pieces) -> tuple[jax.Array, None]:
        more = lambda: total + _each(part, mesh, 1)(output, piece)  # noqa: E731
        return jax.lax.cond(jnp.any(piece.mask != 0), more, lambda: total), None

    zeros = constrain(jnp.zeros((pieces.hidden.shape[1], rows), jnp.float32), mesh, ("batch", None))
    return jax.lax.scan(add, zeros, pieces)[0]


def _forward(part: Part, mesh: Mesh | None, rows: int, output: Any, pieces: Any) -> tuple[jax.Array, Any]:
    learns = any(leaf.perturbed for leaf in jax.tree.leaves(output, is_leaf=_is_primal))
    output, pieces = jax.tree.map(lambda leaf: leaf.value, (output, pieces), is_leaf=_is_primal)
    return add_up(part, mesh, rows, output, pieces), (output, pieces, output if learns else None)


def _backward(part: Part, mesh: Mesh | None, rows: int, kept: Any, cotangent: jax.Array) -> tuple[Any, Pieces]:
    output, pieces, learning = kept
    output = _gathered(output, mesh)

    def pull(output: Any, piece: Pieces, cotangent: jax.Array) -> tuple[Any, jax.Array]:
        """The gradients of the output matrix, where it learns, and of hidden states; of one device."""
        learned = None if learning is None else output
        value = lambda learned, hidden: part(learned or output, piece._replace(hidden=hidden))  # noqa: E731
        return jax.vjp(value, learned, piece.hidden)[1](cotangent)

    def add(sums: Any, piece: Pieces) -> tuple[Any, jax.Array]:
        def more() -> tuple[Any, jax.Array]:
            weights, hidden = _each(pull, mesh, 2)(output, piece, cotangent)
            return jax.tree.map(lambda total, x: wide(total + x.astype(jnp.float32)), sums, weights), hidden

        return jax.lax.cond(jnp.any(piece.mask != 0), more, lambda: (sums, jnp.zeros_like(piece.hidden)))

    def wide(x: jax.Array) -> jax.Array:
        return constrain(x, mesh, ("batch", "vocab", "width"))

    zeros = jax.tree.map(lambda w: wide(jnp.zeros((pieces.hidden.shape[1], *w.shape), jnp.float32)), learning)
    sums, hidden = jax.lax.scan(add, zeros, pieces)
    nothing: Any = None  # what is no parameter has no gradient
    return jax.tree.map(lambda x, w: x.sum(0).astype(w.dtype), sums, learning), Pieces(hidden, nothing, nothing, nothing)


add_up.defvjp(_forward, _backward, symbolic_zeros=True)


def _gathered(output: Any, mesh: Mesh | None) -> Any:
    """The output matrix with its whole width on each device, once for all chunks."""
    return jax.tree.map(lambda weight: constrain(weight, mesh, ("vocab", "width")), output)


def _each(function: Callable, mesh: Mesh | None, mapped: int) -> Callable:
    """`function` on each device: of the output matrix, which all share, and of `mapped` arguments of its own."""
    axes = None if mesh is None else LOGICAL_AXES["batch"]
    return jax.vmap(function, in_axes=(None,) + (0,) * mapped, spmd_axis_name=axes)


def _is_primal(x: Any) -> bool:
    return hasattr(x, "perturbed")
