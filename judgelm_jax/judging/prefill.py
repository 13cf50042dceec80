"""Prompts in, a cache for each and the hidden state at its end out."""

from typing import Any

import jax
import jax.numpy as jnp

from judgelm_jax.config import ModelConfig
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import llama


def prefill(
    params: llama.Params,
    config: ModelConfig,
    placement: llama.Placement,
    tokens: jax.Array,
    lengths: jax.Array,
    room: int,
    dtype: Any,
    at_once: int | None = None,
) -> tuple[jax.Array, kv_cache.Cache]:
    """Runs prompts through the model.

    Args:
      tokens: int32 [B, S], padded on the right; lengths: int32 [B].
      room: free slots behind the prompts.
      at_once: tokens of the rows that are computed together, for hardware whose caches hold no more; rows that are split over
        devices cannot be cut so. None: all.

    Returns:
      The residual stream [B, E] at the last token of each prompt, and caches of S + room slots.
    """
    batch, length = tokens.shape

    def run(tokens: jax.Array, lengths: jax.Array) -> tuple[jax.Array, kv_cache.Cache]:
        cache = kv_cache.empty(config, tokens.shape[0], length + room, dtype, placement.mesh)
        hidden, cache = llama.forward(params, config, tokens, cache=cache, placement=placement, last=lengths - 1)
        return hidden[:, 0], cache

    rows = batch if at_once is None else max(1, at_once // length)
    if rows >= batch:
        return run(tokens, lengths)
    parts = -(-batch // rows)
    rows = -(-batch // parts)

    def add(part: jax.Array, carry: tuple[jax.Array, kv_cache.Cache]) -> tuple[jax.Array, kv_cache.Cache]:
        hidden, cache = carry
        first = jnp.minimum(part * rows, batch - rows)  # the last part may compute a row again
        own, keys_values = run(*(jax.lax.dynamic_slice_in_dim(x, first, rows) for x in (tokens, lengths)))
        cache = {name: jax.lax.dynamic_update_slice_in_dim(x, keys_values[name], first, 1) for name, x in cache.items()}
        return jax.lax.dynamic_update_slice_in_dim(hidden, own, first, 0), cache

    empty = jnp.zeros((batch, config.hidden_size), dtype), kv_cache.empty(config, batch, length + room, dtype, placement.mesh)
    return jax.lax.fori_loop(0, parts, add, empty)
