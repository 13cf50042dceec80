"""Attention by the Pallas kernels for TPUs that JAX ships: the part of one device.

Compiled for v5e, v5p and v6e and interpreted on CPUs; not run on a TPU. Letters of the shapes as in `dispatch`.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.paged_attention import paged_attention_kernel as paged
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from judgelm_jax.model.attention.pages import as_pages, page_size, table
from judgelm_jax.model.config import NO_LIMITS, Limits

_LANES = 128
# Slots that decoding reads at once.
_TILE = 512
# Queries, or keys, of a block at most, forward and backward: the fewer blocks, the less is read again.
_FORWARD_TILE, _BACKWARD_TILE = 1024, 512
# Entries of the page table and lengths: the scalar memory of a core has 1 MiB.
_MOST_SCALARS = 200_000


def prefill(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array | None,
    limits: Limits = NO_LIMITS,
    interpret: bool = False,
) -> jax.Array:
    """Splash attention, forward and backward: `dispatch.attend` without a mask, for S a multiple of 128.

    Blocks above the diagonal, or wholly before the window, are not visited. Grouped heads read their common keys and values
    where they lie.
    """
    _, length, heads, width = q.shape
    tile, back = _largest_tile(length, _FORWARD_TILE), _largest_tile(length, _BACKWARD_TILE)
    sizes = splash.BlockSizes(
        block_q=tile, block_kv=tile, block_q_dkv=back, block_kv_dkv=back, block_q_dq=back, block_kv_dq=back
    )
    if limits.window is None:
        seen: masks.Mask = masks.CausalMask((length, length))
    else:
        seen = masks.LocalMask((length, length), (limits.window - 1, 0), 0)
    kernel = jax.vmap(
        splash.make_splash_mha(
            masks.MultiHeadMask([seen] * heads),
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            attn_logits_soft_cap=limits.softcap,
            interpret=interpret,
        )
    )
    scaled = q.swapaxes(1, 2) * width**-0.5  # the kernel does not scale
    out = kernel(scaled, k, v) if segments is None else kernel(scaled, k, v, splash.SegmentIds(segments, segments))
    return out.swapaxes(1, 2)


def _largest_tile(length: int, most: int) -> int:
    """The largest multiple of the lanes, at most `most`, that divides a length."""
    return max(size for size in range(_LANES, most + 1, _LANES) if length % size == 0)


def refuse_decode(rows: int, slots: int, width: int, dtype: Any) -> None:
    """Raises a ValueError where the kernel cannot read the cache of `rows` rows times heads on one device."""
    page = page_size(slots, _TILE)
    if dtype == jnp.int8:  # and those are float32
        raise ValueError("the kernel wants the scale of an int8 vector once for each of its numbers")
    if width % _LANES:
        raise ValueError(f"heads of {width} are no multiple of {_LANES}")
    if rows * (1 + -(-slots // _TILE) * (_TILE // page)) > _MOST_SCALARS:
        raise ValueError(
            f"the numbers of the pages of {rows} rows times heads, {slots} slots each, do not fit; take fewer rows"
        )


def decode(
    q: jax.Array, k: jax.Array, v: jax.Array, layer: jax.Array, used: jax.Array, softcap: float | None = None
) -> jax.Array:
    """`dispatch.attend_cache` for one token a row: reads the first `used` slots, in whole tiles."""
    batch, _, heads, width = q.shape
    kv_heads, slots = k.shape[2:4]
    rows, page = batch * kv_heads, page_size(slots, _TILE)
    at_once = _TILE // page
    out = paged.paged_attention(
        (q.astype(jnp.float32) * width**-0.5).reshape(rows, heads // kv_heads, width),
        as_pages(k, page),
        as_pages(v, page),
        jnp.repeat(used, kv_heads),
        table(layer, rows, slots // page, at_once),
        pages_per_compute_block=at_once,
        attn_logits_soft_cap=softcap,
    )
    return out.reshape(q.shape).astype(q.dtype)
