"""y = x Wᵀ, on CPUs in the way that is fast there.

XLA multiplies bfloat16 on a CPU with the processor's own instructions if the result is float32. If that is bfloat16, it first
converts both sides to float32, which takes twice the time. So there the product is made in float32 and rounded, in the backward
pass too.

The gradient of W sums over rows. For that XLA first writes the left side column by column, and computes what it is made of as
it goes: slow, for neighbours in a column are far from each other in memory. So in float32 the side with fewer columns is the
left one. In bfloat16 the processor's instructions give the gradient one way round only.

On GPUs and TPUs the plain product is the fastest, and over a mesh it moves half the bytes.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

NAME = "product"  # of a result, to those who say what a backward pass keeps


def product(x: jax.Array, weight: jax.Array, on_cpus: bool) -> jax.Array:
    """x Wᵀ [..., out] of x [..., in] and a weight [out, in], in their dtype."""
    if on_cpus and x.dtype == weight.dtype and x.dtype in (jnp.bfloat16, jnp.float32):
        return checkpoint_name(_on_cpus(x, weight), NAME)
    return jnp.einsum("...i,oi->...o", x, weight)


@jax.custom_vjp
def _on_cpus(x: jax.Array, weight: jax.Array) -> jax.Array:
    return _with_rows(x, weight, 1)


def _forward(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _on_cpus(x, weight), (x, weight)


def _backward(kept: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = kept
    if weight.dtype == jnp.float32 and weight.shape[0] > weight.shape[1]:
        gradient = _over_rows(x, cotangent).T
    else:
        gradient = _over_rows(cotangent, x).astype(weight.dtype)
    return _with_rows(cotangent, weight, 0), gradient


_on_cpus.defvjp(_forward, _backward)


def _with_rows(x: jax.Array, weight: jax.Array, axis: int) -> jax.Array:
    """The sums over the last axis of x and `axis` of a weight."""
    axes = (((x.ndim - 1,), (axis,)), ((), ()))
    return jax.lax.dot_general(x, weight, axes, preferred_element_type=jnp.float32).astype(x.dtype)


def _over_rows(first: jax.Array, second: jax.Array) -> jax.Array:
    """firstᵀ second, float32 [columns of first, columns of second]: the sums over all axes but the last."""
    rows = tuple(range(first.ndim - 1))
    return jax.lax.dot_general(first, second, ((rows, rows), ((), ())), preferred_element_type=jnp.float32)
