"""The key/value cache: slot t of a row holds the token at position t of that row.

```
slots        0  1  2  3  4  5  6        row 0 has 3 tokens, row 1 has 5: each decodes at its own length;
row 0        A  B  C  .  .  .  .        what lies behind a row's length is never seen, since a query
row 1        A  B  C  D  E  .  .        sees only the slots up to its own position.
```
Letters of the shapes: L layers, B batch, T slots, K key/value heads, D width of a head.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from judgelm_jax.config import ModelConfig
from judgelm_jax.sharding import constrain

# "k" and "v", each [L, B, K, T, D]: what a head reads lies in one piece, which makes decoding on CPUs twice as fast as
# [L, B, T, K, D].
Cache = dict[str, jax.Array]

AXES = ("layer", "batch", "kv_heads", None, "head_dim")


def empty(config: ModelConfig, rows: int, slots: int, dtype: Any, mesh: Mesh | None = None) -> Cache:
    """A cache of `slots` slots for each of `rows` rows, to be begun."""
    shape = (config.num_layers, rows, config.num_kv_heads, slots, config.head_dim)
    return {name: constrain(jnp.zeros(shape, dtype), mesh, AXES) for name in ("k", "v")}


def begin(cache: Cache, layer: jax.Array | int, k: jax.Array, v: jax.Array) -> Cache:
    """Writes k, v [B, K, S, D] of one layer into the first S slots of every row."""
    return {
        name: jax.lax.dynamic_update_slice(cache[name], new[None].astype(cache[name].dtype), (layer, 0, 0, 0, 0))
        for name, new in (("k", k), ("v", v))
    }


def write(cache: Cache, layer: jax.Array | int, positions: jax.Array, k: jax.Array, v: jax.Array) -> Cache:
    """Writes k, v [B, K, S, D] of one layer at `positions` [B, S]; what lies outside of the slots is dropped."""
    rows, heads = jnp.arange(k.shape[0])[:, None, None], jnp.arange(k.shape[1])[:, None]
    return {
        name: cache[name].at[layer, rows, heads, positions[:, None]].set(new.astype(cache[name].dtype), mode="drop")
        for name, new in (("k", k), ("v", v))
    }


def slots_of(cache: Cache) -> int:
    """T, the number of slots of each row."""
    return cache["k"].shape[3]


def bytes_per_token(config: ModelConfig, itemsize: int) -> int:
    """Memory of one slot of one row, in bytes, over all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize
