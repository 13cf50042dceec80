"""Continuous batching: a fixed set of slots, each of which decodes one row at that row's own length.

```
slot 0   prompt·········|generated···→            A slot whose row has ended takes the next row at once: its prompt is
slot 1   prompt···|generated→                     prefilled with others of like length and copied into the slot's cache
slot 2   (free)                                   while the other slots stay as they are.
```
Letters of the shapes: N slots, T cache slots, B rows that are admitted together, S tokens of the longest of them.
"""

from typing import Any

import jax
import jax.numpy as jnp

from judgelm_jax.judging.constrained_decoding import gumbel
from judgelm_jax.judging.prefill import prefill
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement

# cache: of N rows of T slots; int32 [N] each: length (the position at which `last` will be written), last (the token to feed),
# produced (tokens generated; -1: the logits were not finite); finished, stopped: bool [N] (stopped: by an end-of-sequence
# token); text: int32 [N, most]; keys: uint32 [N, 2].
State = dict[str, Any]


def empty(config: ModelConfig, slots: int, context: int, most: int, dtype: Any) -> State:
    """All slots free. `context` is the length of their caches, `dtype` that of these (a float's, or int8), `most` the number of
    tokens that a row may generate."""
    return {
        "cache": kv_cache.empty(config, slots, context, dtype, unstacked=True),
        "length": jnp.zeros(slots, jnp.int32),
        "last": jnp.zeros(slots, jnp.int32),
        "produced": jnp.zeros(slots, jnp.int32),
        "finished": jnp.ones(slots, bool),
        "stopped": jnp.zeros(slots, bool),
        "text": jnp.zeros((slots, most), jnp.int32),
        "keys": jnp.zeros((slots, 2), jnp.uint32),
    }


def axes(state: State) -> State:
    """The logical axes of each array of a state, or of their shapes."""
    cache = kv_cache.axes(state["cache"])
    return {name: cache if name == "cache" else ("batch", *[None] * (x.ndim - 1)) for name, x in state.items()}


def admit(
    params: parameters.Params,
    state: State,
    tokens: jax.Array,
    tree: tuple[jax.Array, ...],
    lengths: jax.Array,
    keys: jax.Array,
    slots: jax.Array,
    temperature: jax.Array | None,
    config: ModelConfig,
    placement: Placement,
    dtype: Any,
) -> State:
    """Prefills rows and puts them into slots, with their first generated token.

    Args:
      tokens, tree: of B prompts, the longest of which has S ≤ T tokens, as `prefill` takes them.
      lengths: int32 [B]; keys: uint32 [B, 2].
      slots: int32 [B], the slot of each prompt; N or more for padding.
      temperature: float32 scalar, or None for greedy decoding.
      dtype: of the computation, and so of what is prefilled.
    """
    last, fresh = prefill(params, config, placement, tokens, tree, 0, dtype)
    first = _choose(decoder.head(params, config, last), keys, jnp.zeros_like(lengths), temperature)

    def put(old, new):
        return old.at[slots].set(new, mode="drop")

    stopped, broken = _is_end(first, config), first < 0
    most = state["text"].shape[1]
    return {
        "cache": kv_cache.insert(state["cache"], slots, fresh),
        "length": put(state["length"], lengths),
        "last": put(state["last"], first),
        "produced": put(state["produced"], jnp.where(broken, -1, jnp.where(stopped, 0, 1))),
        "finished": put(state["finished"], stopped | broken | (most == 1)),
        "stopped": put(state["stopped"], stopped),
        "text": put(state["text"], jnp.zeros((slots.shape[0], most), jnp.int32).at[:, 0].set(first)),
        "keys": put(state["keys"], keys),
    }


def decode(
    params: parameters.Params,
    state: State,
    temperature: jax.Array | None,
    config: ModelConfig,
    placement: Placement,
    steps: int,
) -> State:
    """Up to `steps` tokens for every slot that is not finished; ends early when all are."""
    slots, most = state["text"].shape
    context = kv_cache.slots_of(state["cache"])
    rows = jnp.arange(slots)

    def running(carry):
        step, state = carry
        return (step < steps) & ~jnp.all(state["finished"])

    def advance(carry):
        step, state = carry
        finished, produced = state["finished"], state["produced"]
        # A finished slot writes behind its cache, that is nowhere.
        positions = jnp.where(finished, context, state["length"])[:, None]
        view = views.in_order(positions, context)
        hidden, cache = decoder.forward(params, config, state["last"][:, None], view, state["cache"], placement)
        token = _choose(decoder.head(params, config, hidden[:, 0]), state["keys"], produced, temperature)
        ends, broken = ~finished & _is_end(token, config), ~finished & (token < 0)
        writes = ~finished & ~ends & ~broken
        produced = jnp.where(broken, -1, produced + writes)
        return step + 1, {
            "cache": cache,
            "length": state["length"] + ~finished,
            "last": jnp.where(finished, state["last"], token),
            "produced": produced,
            "finished": finished | ends | broken | (produced >= most),
            "stopped": state["stopped"] | ends,
            "text": state["text"].at[rows, jnp.where(writes, state["produced"], most)].set(token, mode="drop"),
            "keys": state["keys"],
        }

    return jax.lax.while_loop(running, advance, (0, state))[1]


def _choose(logits: jax.Array, keys: jax.Array, steps: jax.Array, temperature: jax.Array | None) -> jax.Array:
    """The most likely token of each row of float32 [B, V], or a sampled one; -1 where the logits are not finite."""
    finite = jnp.isfinite(logits).all(axis=1)
    if temperature is not None:
        noise = jax.vmap(lambda key, step: gumbel(key[None], step, logits.shape[1])[0])(keys, steps)
        logits = logits / temperature + noise
    return jnp.where(finite, jnp.argmax(logits, axis=1), -1).astype(jnp.int32)


def _is_end(token: jax.Array, config: ModelConfig) -> jax.Array:
    return jnp.isin(token, jnp.asarray(config.eos_ids, jnp.int32))
