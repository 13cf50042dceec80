"""Causal attention with grouped queries: one signature, several backends.

Letters of the shapes: B batch, S queries, T keys, H query heads, K key/value heads, D width of a head.
"""

import jax
import jax.numpy as jnp

BACKENDS = ("reference", "xla", "blocked")

# Queries of one block of the `blocked` backend. Its scores, B × H × 128 × T floats, stay in the caches of a CPU core.
_BLOCK = 128


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, backend: str) -> jax.Array:
    """Softmax attention of each query over the keys that it may see. The softmax is computed in float32.

    Args:
      q: [B, S, H, D].
      k, v: [B, T, K, D]; query head h reads key/value head h // (H / K).
      mask: None where queries and keys are the same tokens in order (training, prefill; S = T): query s sees the keys 0..s.
        Else bool [B or 1, S, T], true where a query sees a key (of a cache); each query must see one.
      backend: `reference` spells the definition out in float32; `xla` is `jax.nn.dot_product_attention`; `blocked` computes
        prefill a block of queries at a time against the keys up to the block's end, so that nearly nothing above the
        diagonal is computed (for CPUs, where no fused kernel exists), and is `xla` where a mask is given.

    Returns:
      [B, S, H, D] in the dtype of q.
    """
    if mask is None and q.shape[1] != k.shape[1]:
        raise ValueError(f"without a mask, {q.shape[1]} queries need as many keys, not {k.shape[1]}")
    if backend == "reference":
        return _reference(q, k, v, mask)
    if backend == "xla" or (backend == "blocked" and mask is not None):
        return _xla(q, k, v, mask)
    if backend == "blocked":
        return _blocked(q, k, v)
    raise ValueError(f"unknown attention backend {backend!r}; one of {', '.join(BACKENDS)}")


def cache_mask(positions: jax.Array, slots: int) -> jax.Array:
    """bool [B, S, slots]: a query at position p of its row (int32 [B, S]) sees the slots 0..p of the cache."""
    return jnp.arange(slots) <= positions[:, :, None]


def backend_for(platform: str) -> str:
    """The fastest backend on `platform` (`cpu`, `gpu`, `tpu`)."""
    return "blocked" if platform == "cpu" else "xla"


def _reference(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    queries, width = q.shape[1], q.shape[3]
    groups = q.shape[2] // k.shape[2]
    q32, k32, v32 = (x.astype(jnp.float32) for x in (q, k, v))
    k32, v32 = (jnp.repeat(x, groups, axis=2) for x in (k32, v32))  # [B, T, H, D]
    seen = jnp.tril(jnp.ones((1, queries, queries), bool)) if mask is None else mask
    scores = jnp.einsum("bshd,bthd->bhst", q32, k32, precision="highest") * width**-0.5
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -jnp.inf), axis=-1)  # [B, H, S, T]
    return jnp.einsum("bhst,bthd->bshd", weights, v32, precision="highest").astype(q.dtype)


def _xla(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="xla")
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation="xla")


def _blocked(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    blocks = []
    for start in range(0, q.shape[1], _BLOCK):
        end = min(start + _BLOCK, q.shape[1])
        mask = cache_mask(jnp.arange(start, end)[None], end)
        blocks.append(_xla(q[:, start:end], k[:, :end], v[:, :end], mask))
    return jnp.concatenate(blocks, axis=1)
