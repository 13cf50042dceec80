"""Weights of a judge, and its cache, as whole numbers of 8 bits with a scale for each row: half the memory of bfloat16.

A row w of a matrix [out, in] becomes q = round(w / s) with s = max |w| / 127 (round to nearest, symmetric, as of Jacob et al.,
arXiv 1712.05877), so that no value is off by more than s / 2. Activations stay as they are: x · w = s (x · q), and whole
numbers up to 127 are exact in bfloat16. The scale multiplies the product in float32, before it is rounded.

A row of the cache is the key, or the value, of one token and head. Its scales are float32, too, whatever the dtype of the
computation: they multiply scores and weights of attention, which are float32, and take a 32nd of heads of 128.
"""

import jax
import jax.numpy as jnp
import numpy as np

_LARGEST = 127


def quantized(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 [out, in] and scales float32 [out] of a finite weight [out, in]; of a row of zeros the scale is 1."""
    weight = weight.astype(np.float32)
    largest = np.abs(weight).max(axis=1)
    # The scale of a row of subnormal numbers would be zero: such a row is one of zeros.
    scale = np.where(largest >= np.finfo(np.float32).tiny * _LARGEST, largest / np.float32(_LARGEST), 1).astype(np.float32)
    return np.rint(weight / scale[:, None]).astype(np.int8), scale


def step_sizes(vectors: jax.Array) -> jax.Array:
    """The scales float32 [...] of vectors [..., D], made in a compiled program: of zeros 1, of what is not finite neither."""
    largest = jnp.abs(vectors).max(axis=-1).astype(jnp.float32)
    return jnp.where(largest < np.finfo(np.float32).tiny * _LARGEST, 1, largest / _LARGEST)


def in_steps(vectors: jax.Array, scales: jax.Array) -> jax.Array:
    """int8 [..., D]: vectors [..., D] in steps of their scales [...]."""
    return jnp.rint(vectors.astype(jnp.float32) / scales[..., None]).astype(jnp.int8)


def product(x: jax.Array, weight: jax.Array, scale: jax.Array) -> jax.Array:
    """x Wᵀ in float32 [..., out] of x [..., in], int8 weight [out, in] and its scales [out]."""
    return jnp.einsum("...i,oi->...o", x, weight.astype(x.dtype), preferred_element_type=jnp.float32) * scale


def rows(weight: jax.Array, scale: jax.Array, which: jax.Array) -> jax.Array:
    """Rows [..., in] in float32, at `which` int32 [...], of an int8 weight [out, in] and its scales [out]."""
    return weight[which].astype(jnp.float32) * scale[which][..., None]
