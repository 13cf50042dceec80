"""Attention in plain JAX: spelled out, by the library, and a block of queries at a time.

Letters of the shapes: B batch, S queries, T keys, H query heads, K key/value heads, D width of a head.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from judgelm_jax.model.cache import Scales
from judgelm_jax.model.config import NO_LIMITS, Limits

# Queries of one block of `blocked`. Blocks of 128 take as long on two cores with 2 MB of cache each, and twice as long to
# compile; those of 64 and of 512 take a third more.
_BLOCK = 256


def cache_mask(positions: jax.Array, slots: int) -> jax.Array:
    """bool [B, S, slots]: a query at position p of its row (int32 [B, S]) sees the slots 0..p of the cache."""
    return jnp.arange(slots) <= positions[:, :, None]


def causal_mask(length: int, window: int | None) -> jax.Array:
    """bool [1, length, length]: a query sees itself and the keys before it, no more than `window` together."""
    positions = jnp.arange(length)[None]
    return near(cache_mask(positions, length), positions, window, 0)


def near(mask: jax.Array, positions: jax.Array, window: int | None, first: int) -> jax.Array:
    """`mask` [B, S, T] without the keys that lie before the window of their query; key t has the position `first` + t."""
    if window is None:
        return mask
    return mask & (first + jnp.arange(mask.shape[-1]) > positions[:, :, None] - window)


def same_segment(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """bool [B, S, T] of segment numbers [B, S] and [B, T]."""
    return queries[:, :, None] == keys[:, None, :]


def reference(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    limits: Limits = NO_LIMITS,
    scales: Scales | None = None,
) -> jax.Array:
    """The definition, in float32."""
    queries, width = q.shape[1], q.shape[3]
    groups = q.shape[2] // k.shape[1]
    q32, k32, v32 = (x.astype(jnp.float32) for x in (q, k, v))
    if scales is not None:
        k32, v32 = (x * scale[..., None] for x, scale in zip((k32, v32), scales, strict=True))
    k32, v32 = (jnp.repeat(x, groups, axis=1) for x in (k32, v32))  # [B, H, T, D]
    seen = causal_mask(queries, limits.window) if mask is None else mask
    scores = _capped(jnp.einsum("bshd,bhtd->bhst", q32, k32, precision="highest") * width**-0.5, limits.softcap)
    weights = jax.nn.softmax(jnp.where(seen[:, None], scores, -jnp.inf), axis=-1)  # [B, H, S, T]
    return jnp.einsum("bhst,bhtd->bshd", weights, v32, precision="highest").astype(q.dtype)


def library(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    implementation: Literal["xla", "cudnn"],
    window: int | None = None,
) -> jax.Array:
    """`jax.nn.dot_product_attention`; `window` where there is no mask."""
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)  # [B, T, K, D]
    if mask is None:
        sides = None if window is None else (window - 1, 0)
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, local_window_size=sides, implementation=implementation)
    return jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation=implementation)


def blocked(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array | None,
    spans: jax.Array | None,
    limits: Limits = NO_LIMITS,
) -> jax.Array:
    """A row and a block of queries at a time against the keys from the window of its first query to its end: nearly nothing
    that no query sees is computed, and the scores of one block are all that is kept. Where `spans` are given, blocks outside of
    a row's are zeros that cost nothing."""
    batch, length, heads, width = q.shape
    kv_heads = k.shape[1]
    q = q.reshape(batch, length, kv_heads, heads // kv_heads, width).transpose(0, 2, 3, 1, 4) * width**-0.5

    def row(own):
        q, k, v, segments, span = jax.tree.map(lambda x: x[None], own)

        def block(start, end):
            first = 0 if limits.window is None else max(0, start - limits.window + 1)
            positions = jnp.arange(start, end)[None]
            below = near(cache_mask(positions, end)[:, :, first:], positions, limits.window, first)
            if segments is not None:
                below &= same_segment(segments[:, start:end], segments[:, first:end])
            # A backward pass computes the scores of a block again: keeping them all costs more time than that.
            products = jax.checkpoint(functools.partial(_products, softcap=limits.softcap))
            return products(q[..., start:end, :], k[:, :, first:end], v[:, :, first:end], below)

        blocks = []
        for start in range(0, length, _BLOCK):
            end = min(start + _BLOCK, length)
            if span is None:
                blocks.append(block(start, end))
            else:
                begin, behind = span[0]
                wanted = (begin < end) & (start < behind) & (begin < behind)
                nothing = functools.partial(jnp.zeros_like, q[..., start:end, :])
                blocks.append(jax.lax.cond(wanted, functools.partial(block, start, end), nothing))
        return jnp.concatenate(blocks, axis=3)[0]

    out = jax.lax.map(row, (q, k, v, segments, spans))
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, width)


def masked(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    softcap: float | None = None,
    scales: Scales | None = None,
) -> jax.Array:
    """All queries at once, each product a plain batched matrix product."""
    batch, length, heads, width = q.shape
    q = q.reshape(batch, length, k.shape[1], -1, width).transpose(0, 2, 3, 1, 4) * width**-0.5
    return _products(q, k, v, mask, softcap, scales).transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, width)


def _products(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, softcap: float | None, scales: Scales | None = None
) -> jax.Array:
    """[B, K, H / K, S, D] of scaled queries of that shape; each product is a plain batched matrix product.

    The scales of int8 keys multiply the scores, and those of values the weights: no vector of the cache is made whole.
    """
    if scales is not None:
        k, v = k.astype(q.dtype), v.astype(q.dtype)
    scores = jnp.einsum("bkgsd,bktd->bkgst", q, k, preferred_element_type=jnp.float32)
    if scales is not None:
        scores *= scales[0][:, :, None, None]
    scores = jnp.where(mask[:, None, None], _capped(scores, softcap), -jnp.inf)
    # The result does not depend on what is subtracted, so no gradient flows through it.
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    shares = weights if scales is None else weights * scales[1][:, :, None, None]
    out = jnp.einsum("bkgst,bktd->bkgsd", shares.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (out / weights.sum(axis=-1, keepdims=True)).astype(q.dtype)


def _capped(scores: jax.Array, softcap: float | None) -> jax.Array:
    return scores if softcap is None else jnp.tanh(scores / softcap) * softcap
