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
    free_slots: int,
    dtype: Any,
) -> tuple[jax.Array, kv_cache.Cache]:
    """Runs prompts through the model.

    Args:
      tokens, tree: token rows int32 [B, S] and how P prompts are packed in each, as `batching.Batch.arrays` has both.
      free_slots: of the cache, behind the longest prompt.

    Returns:
      Of the B · P prompts, the residual stream [B · P, E] at the last token of each, and caches of longest + free_slots slots,
      unstacked where the layers of the parameters are.
    """
    view = views.PromptTree(*tree)
    rows, prompts, longest = view.indices.shape
    unstacked = isinstance(params["layers"], list)
    cache = kv_cache.empty(config, rows * prompts, longest + free_slots, dtype, placement.mesh, unstacked)
    hidden, cache = decoder.forward(params, config, tokens, view, cache, placement)
    return hidden.reshape(rows * prompts, -1), cache
