"""y = x Wᵀ, on CPUs in the way that is fast there.

XLA multiplies bfloat16 on a CPU with the processor's own instructions if the result is float32. If that is bfloat16, it first
converts both sides to float32, which takes twice the time. So there the product is made in float32 and rounded, in the backward
pass too. On GPUs and TPUs the plain product is the fastest, and over a mesh it moves half the bytes.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

NAME = "product"  # of a result, to those who say what a backward pass keeps


def product(x: jax.Array, weight: jax.Array, on_cpus: bool) -> jax.Array:
    """x Wᵀ [..., out] of x [..., in] and a weight [out, in], in their dtype."""
    if on_cpus and x.dtype == weight.dtype == jnp.bfloat16:
        return checkpoint_name(_rounded(x, weight), NAME)
    return jnp.einsum("...i,oi->...o", x, weight)


@jax.custom_vjp
def _rounded(x: jax.Array, weight: jax.Array) -> jax.Array:
    return _with_rows(x, weight, 1)


def _forward(x: jax.Array, weight: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _rounded(x, weight), (x, weight)


def _backward(kept: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = kept
    rows = tuple(range(x.ndim - 1))
    gradient = jax.lax.dot_general(cotangent, x, ((rows, rows), ((), ())), preferred_element_type=jnp.float32)
    return _with_rows(cotangent, weight, 0), gradient.astype(weight.dtype)


_rounded.defvjp(_forward, _backward)


def _with_rows(x: jax.Array, weight: jax.Array, axis: int) -> jax.Array:
    """The sums over the last axis of x and `axis` of a weight."""
    axes = (((x.ndim - 1,), (axis,)), ((), ()))
    return jax.lax.dot_general(x, weight, axes, preferred_element_type=jnp.float32).astype(x.dtype)
