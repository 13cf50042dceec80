"""Prompts in, a cache for each and the hidden state at its end out."""

from typing import Any

import jax

from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import llama
from judgelm_jax.model.config import ModelConfig


def prefill(
    params: llama.Params,
    config: ModelConfig,
    placement: llama.Placement,
    tokens: jax.Array,
    packed: llama.Packed,
    room: int,
    dtype: Any,
) -> tuple[jax.Array, kv_cache.Cache]:
    """Runs prompts through the model.

    Args:
      tokens: int32 [parts, size] and the way that prompts are packed in them, as `batching.Batch.arrays` has both.
      room: free slots behind the prompts.

    Returns:
      Of the B = parts × prompts prompts, the residual stream [B, E] at the last token of each, and caches of longest + room
      slots, apart where the layers of the parameters are.
    """
    parts, prompts, longest = packed.places.shape
    apart = isinstance(params["layers"], list)
    cache = kv_cache.empty(config, parts * prompts, longest + room, dtype, placement.mesh, apart)
    hidden, cache = llama.forward(params, config, tokens, cache=cache, placement=placement, packed=packed)
    return hidden.reshape(parts * prompts, -1), cache
