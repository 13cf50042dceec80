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

from judgelm_jax.devices.sharding import constrain
from judgelm_jax.model.config import ModelConfig

# "k" and "v", each [L, B, K, T, D], or unstacked, a list of L arrays [B, K, T, D]. What a head reads is contiguous, which
# makes decoding on CPUs twice as fast as [L, B, T, K, D]. An unstacked cache makes it twice as fast again, for a matrix product
# on a CPU copies what is a part of a larger array; a scan over layers needs a stacked one.
Cache = dict[str, Any]

AXES = ("layer", "batch", "kv_heads", None, "head_dim")


def empty(config: ModelConfig, rows: int, slots: int, dtype: Any, mesh: Mesh | None = None, unstacked: bool = False) -> Cache:
    """A cache of `slots` slots for each of `rows` rows, to be begun."""

    def make() -> Any:
        shape = (rows, config.num_kv_heads, slots, config.head_dim)
        if unstacked:
            return [constrain(jnp.zeros(shape, dtype), mesh, AXES[1:]) for _ in range(config.num_layers)]
        return constrain(jnp.zeros((config.num_layers, *shape), dtype), mesh, AXES)

    return {"k": make(), "v": make()}


def begin(cache: Cache, layer: Any, k: jax.Array, v: jax.Array) -> Cache:
    """Writes k, v [B, K, S, D] of one layer into the first S slots of every row."""

    def put(held, new):
        if isinstance(held, list):
            return _with(held, layer, jax.lax.dynamic_update_slice(held[layer], new.astype(held[layer].dtype), (0, 0, 0, 0)))
        return jax.lax.dynamic_update_slice(held, new[None].astype(held.dtype), (layer, 0, 0, 0, 0))

    return {"k": put(cache["k"], k), "v": put(cache["v"], v)}


def write(cache: Cache, layer: Any, positions: jax.Array, k: jax.Array, v: jax.Array) -> Cache:
    """Writes k, v [B, K, S, D] of one layer at `positions` [B, S]; what lies outside of the slots is dropped."""
    indices = jnp.arange(k.shape[0])[:, None, None], jnp.arange(k.shape[1])[:, None], positions[:, None]

    def put(held, new):
        if isinstance(held, list):
            return _with(held, layer, held[layer].at[indices].set(new.astype(held[layer].dtype), mode="drop"))
        return held.at[layer, *indices].set(new.astype(held.dtype), mode="drop")

    return {"k": put(cache["k"], k), "v": put(cache["v"], v)}


def insert(cache: Cache, rows: jax.Array, new: Cache) -> Cache:
    """Writes the rows of a cache with S ≤ T slots over the first slots of `rows` int32 [B]; rows behind the last are
    dropped. Both are stacked, or both unstacked."""

    def put(held, new):
        slots = new.shape[-2]
        first = held.at[rows, :, :slots] if held.ndim == 4 else held.at[:, rows, :, :slots]
        return first.set(new, mode="drop")

    return jax.tree.map(put, cache, new)


def of_layer(cache: Cache, layer: Any) -> tuple[jax.Array, jax.Array, Any]:
    """k and v [N, B, K, T, D] and the index among these N of the layer."""
    if isinstance(cache["k"], list):
        return cache["k"][layer][None], cache["v"][layer][None], 0
    return cache["k"], cache["v"], layer


def alone(cache: Cache, layer: int) -> Cache:
    """Of an unstacked cache, that of one layer, which is layer 0 of it."""
    return {name: [held[layer]] for name, held in cache.items()}


def put_back(cache: Cache, layer: int, own: Cache) -> Cache:
    """An unstacked cache with that of one layer in its place."""
    return {name: _with(held, layer, own[name][0]) for name, held in cache.items()}


def _with(arrays: list[jax.Array], index: int, new: jax.Array) -> list[jax.Array]:
    return [*arrays[:index], new, *arrays[index + 1 :]]


def slots_of(cache: Cache) -> int:
    """T, the number of slots of each row."""
    return jax.tree.leaves(cache)[0].shape[-2]


def bytes_per_token(config: ModelConfig, itemsize: int) -> int:
    """Memory of one slot of one row, in bytes, over all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize
