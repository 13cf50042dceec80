"""Prompts in, a cache for each and the hidden state at its end out."""

from typing import Any

import jax

from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement


def prefill(
    params: parameters.Params,
    config: ModelConfig,
    placement: Placement,
    tokens: jax.Array,
    tree: tuple[jax.Array, ...],
    room: int,
    dtype: Any,
) -> tuple[jax.Array, kv_cache.Cache]:
    """Runs prompts through the model.

    Args:
      tokens, tree: int32 [parts, size] and how prompts are packed in them, as `batching.Batch.arrays` has both.
      room: free slots behind the prompts.

    Returns:
      Of the B = parts × prompts prompts, the residual stream [B, E] at the last token of each, and caches of longest + room
      slots, unstacked where the layers of the parameters are.
    """
    view = views.PromptTree(*tree)
    parts, prompts, longest = view.indices.shape
    unstacked = isinstance(params["layers"], list)
    cache = kv_cache.empty(config, parts * prompts, longest + room, dtype, placement.mesh, unstacked)
    hidden, cache = decoder.forward(params, config, tokens, view, cache, placement)
    return hidden.reshape(parts * prompts, -1), cache
