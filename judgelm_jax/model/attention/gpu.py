"""Attention by the Pallas kernels for GPUs that JAX ships (Triton): the part of one device.

Interpreted on CPUs in the tests; held to the definition on an H200 (bench/README.md), but for int8. Letters of the shapes as in
`dispatch`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.gpu import attention as flash
from jax.experimental.pallas.ops.gpu import paged_attention as paged

from judgelm_jax.model.attention.pages import as_pages, page_size, table

# Slots that a program of the decoding kernel reads at once: the keys of one matrix product.
_TILE = 128
# Programs that occupy a GPU: where rows times key/value heads are fewer, the slots of each are split among several.
_PROGRAMS = 512


def prefill(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None, interpret: bool = False) -> jax.Array:
    """FlashAttention-2, forward and backward: `dispatch.attend` without a mask, for S a multiple of 128.

    Blocks above the diagonal are not computed. The kernel knows no grouped heads: keys and values are repeated.
    """
    groups, width = q.shape[2] // k.shape[1], q.shape[3]
    k, v = (jnp.repeat(x.swapaxes(1, 2), groups, axis=2) for x in (k, v))  # [B, S, H, D]
    return flash.mha(q, k, v, segments, sm_scale=width**-0.5, causal=True, interpret=interpret)


def refuse_decode(rows: int, slots: int, width: int, dtype: Any) -> None:
    """Raises a ValueError where the kernel cannot read the cache: its tiles are powers of two."""
    page_size(slots, _TILE)
    if width not in (16, 32, 64, 128):
        raise ValueError(f"heads of {width} are none of 16, 32, 64, 128")


def decode(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    layer: jax.Array,
    used: jax.Array,
    k_scale: jax.Array | None = None,
    v_scale: jax.Array | None = None,
    softcap: float | None = None,
    interpret: bool = False,
) -> jax.Array:
    """`dispatch.attend_cache` for one token a row: reads the first `used` slots, in whole tiles.

    `k_scale`, `v_scale`: [L, B, K, T] of an int8 cache.
    """
    batch, _, heads, width = q.shape
    kv_heads, slots = k.shape[2:4]
    rows, page = batch * kv_heads, page_size(slots, _TILE)
    at_once = _TILE // page
    splits = 1
    while rows * splits < _PROGRAMS and 2 * splits * _TILE <= slots:
        splits *= 2
    out = paged.paged_attention(
        (q * width**-0.5).reshape(rows, heads // kv_heads, width),
        as_pages(k, page),
        as_pages(v, page),
        table(layer, rows, slots // page, at_once * splits),
        jnp.repeat(used, kv_heads),
        *(None if scale is None else as_pages(scale, page) for scale in (k_scale, v_scale)),
        pages_per_compute_block=at_once,
        k_splits=splits,
        attn_logits_soft_cap=softcap,
        interpret=interpret,
    )
    return out.reshape(q.shape)
