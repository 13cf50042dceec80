"""Causal attention with grouped queries: one signature, several backends.

Letters of the shapes: B batch, S queries, T keys, H query heads, K key/value heads, D width of a head.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

BACKENDS = ("reference", "xla", "blocked", "cudnn")

# Queries of one block of the `blocked` backend. Its scores, B × H × 128 × T floats, stay in the caches of a CPU core.
_BLOCK = 128


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, backend: str, segments: jax.Array | None = None
) -> jax.Array:
    """Softmax attention of each query over the keys that it may see. The softmax is computed in float32.

    Args:
      q: [B, S, H, D].
      k, v: [B, K, T, D], the layout of the cache; query head h reads key/value head h // (H / K).
      mask: None where queries and keys are the same tokens in order (training, prefill; S = T): query s sees the keys 0..s.
        Else bool [B or 1, S, T], true where a query sees a key (of a cache); each query must see one.
      backend: `reference` spells the definition out in float32; `xla` is `jax.nn.dot_product_attention`; `blocked` computes
        prefill a block of queries at a time against the keys up to the block's end, so that nearly nothing above the
        diagonal is computed, by plain matrix products (for CPUs, where no fused kernel exists); `cudnn` is NVIDIA's fused
        kernel for prefill and training, and is `xla` where a mask is given.
      segments: int32 [B, S], without a mask: a query sees only keys of its own number. `cudnn` cannot do that.

    Returns:
      [B, S, H, D] in the dtype of q.

    Raises:
      ValueError: the backend cannot do what is asked.
    """
    if mask is None and q.shape[1] != k.shape[2]:
        raise ValueError(f"without a mask, {q.shape[1]} queries need as many keys, not {k.shape[2]}")
    if mask is not None and segments is not None:
        raise ValueError("segments are for queries and keys that are the same tokens: give no mask")
    if segments is not None and backend == "cudnn":
        raise ValueError("the attention backend cudnn cannot keep the documents of a row apart; take xla, or do not pack")
    if segments is not None and backend in ("reference", "xla"):
        mask = _same_segment(segments, segments) & cache_mask(jnp.arange(q.shape[1])[None], q.shape[1])
    if backend == "reference":
        return _reference(q, k, v, mask)
    if backend == "cudnn":
        refuse_cudnn(q.shape[3], q.dtype)
    if backend == "xla" or (backend == "cudnn" and mask is not None):
        return _library(q, k, v, mask, "xla")
    if backend == "cudnn":
        return _library(q, k, v, None, "cudnn")
    if backend == "blocked":
        return _blocked(q, k, v, mask, segments)
    raise ValueError(f"unknown attention backend {backend!r}; one of {', '.join(BACKENDS)}")


def cache_mask(positions: jax.Array, slots: int) -> jax.Array:
    """bool [B, S, slots]: a query at position p of its row (int32 [B, S]) sees the slots 0..p of the cache."""
    return jnp.arange(slots) <= positions[:, :, None]


def refuse_cudnn(width: int, dtype: Any) -> None:
    """Raises a ValueError where cuDNN's fused kernel does not exist: it wants half precision and narrow heads."""
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16) or width > 128 or width % 8:
        raise ValueError(
            f"the attention backend cudnn needs bfloat16 or float16 and heads of at most 128, a multiple of 8; not {dtype} and "
            f"{width}"
        )


def backend_for(platform: str, width: int, dtype: Any) -> str:
    """The fastest backend on `platform` (`cpu`, `gpu`, `tpu`) for heads of this width and this dtype."""
    if platform != "gpu":
        return "blocked" if platform == "cpu" else "xla"
    try:
        refuse_cudnn(width, dtype)
    except ValueError:
        return "xla"
    return "cudnn"


def _reference(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
    queries, width = q.shape[1], q.shape[3]
    groups = q.shape[2] // k.shape[1]
    q32, k32, v32 = (x.astype(jnp.float32) for x in (q, k, v))
    k32, v32 = (jnp.repeat(x, groups, axis=1) for x in (k32, v32))  # [B, H, T, D]
    seen = jnp.tril(jnp.ones((1, queries, queries), bool)) if mask is None else mask
    scores = jnp.einsum("bshd,bhtd->bhst", q32, k32, precision="highest") * width**-0.5
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -jnp.inf), axis=-1)  # [B, H, S, T]
    return jnp.einsum("bhst,bhtd->bshd", weights, v32, precision="highest").astype(q.dtype)


def _library(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, implementation: Literal["xla", "cudnn"]
) -> jax.Array:
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)  # [B, T, K, D]
    if mask is None:
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation=implementation)
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation=implementation)


def _same_segment(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """bool [B, S, T] of segment numbers [B, S] and [B, T]."""
    return queries[:, :, None] == keys[:, None, :]


def _blocked(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, segments: jax.Array | None) -> jax.Array:
    batch, length, heads, width = q.shape
    kv_heads = k.shape[1]
    q = q.reshape(batch, length, kv_heads, heads // kv_heads, width).transpose(0, 2, 3, 1, 4) * width**-0.5
    if mask is not None:
        out = _products(q, k, v, mask)
    else:
        blocks = []
        for start in range(0, length, _BLOCK):
            end = min(start + _BLOCK, length)
            below = cache_mask(jnp.arange(start, end)[None], end)
            if segments is not None:
                below &= _same_segment(segments[:, start:end], segments[:, :end])
            blocks.append(_products(q[..., start:end, :], k[:, :, :end], v[:, :, :end], below))
        out = jnp.concatenate(blocks, axis=3)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, width)


def _products(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, K, H / K, S, D] of scaled queries of that shape; each product is a plain batched matrix product."""
    scores = jnp.einsum("bkgsd,bktd->bkgst", q, k, preferred_element_type=jnp.float32)
    scores = jnp.where(mask[:, None, None], scores, -jnp.inf)
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    out = jnp.einsum("bkgst,bktd->bkgsd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (out / weights.sum(axis=-1, keepdims=True)).astype(q.dtype)
