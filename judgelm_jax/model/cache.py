"""The key/value cache: slot t of a row holds the token at position t of that row.

```
slots        0  1  2  3  4  5  6        row 0 has 3 tokens, row 1 has 5: each decodes at its own length;
row 0        A  B  C  .  .  .  .        what lies behind a row's length is never seen, since a query
row 1        A  B  C  D  E  .  .        sees only the slots up to its own position.
```
Letters of the shapes: L layers, B batch, T slots, K key/value heads, D width of a head.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from judgelm_jax.devices.sharding import LogicalAxes, constrain
from judgelm_jax.model import quantization
from judgelm_jax.model.config import ModelConfig

# "k" and "v", each [L, B, K, T, D], or unstacked, a list of L arrays [B, K, T, D]; of int8 also "k_scale" and "v_scale",
# float32 without the last axis: each vector is its whole numbers times its scale (`quantization.py`). What a head reads is
# contiguous, which makes decoding on CPUs twice as fast as [L, B, T, K, D]. An unstacked cache makes it twice as fast again,
# for a matrix product on a CPU copies what is a part of a larger array; a scan over layers needs a stacked one.
Cache = dict[str, Any]
Scales = tuple[jax.Array, jax.Array]  # of keys and of values

AXES = ("layer", "batch", "kv_heads", None, "head_dim")
SCALE_AXES = AXES[:-1]


def empty(config: ModelConfig, rows: int, slots: int, dtype: Any, mesh: Mesh | None = None, unstacked: bool = False) -> Cache:
    """A cache of `slots` slots for each of `rows` rows, to be begun; `dtype`: a float's, or int8."""

    def make(shape: tuple[int, ...], dtype: Any, axes: LogicalAxes) -> Any:
        if unstacked:
            return [constrain(jnp.zeros(shape, dtype), mesh, axes[1:]) for _ in range(config.num_layers)]
        return constrain(jnp.zeros((config.num_layers, *shape), dtype), mesh, axes)

    shape = (rows, config.num_kv_heads, slots, config.head_dim)
    cache = {name: make(shape, dtype, AXES) for name in ("k", "v")}
    scaled = _is_scaled(dtype)
    return cache | {name: make(shape[:-1], jnp.float32, SCALE_AXES) for name in ("k_scale", "v_scale") if scaled}


def axes(cache: Cache) -> Cache:
    """The logical axes of each array of a cache, or of their shapes."""
    of_name = {name: SCALE_AXES if name.endswith("_scale") else AXES for name in cache}
    return {name: [of_name[name][1:]] * len(held) if isinstance(held, list) else of_name[name] for name, held in cache.items()}


def begin(cache: Cache, layer: Any, k: jax.Array, v: jax.Array) -> Cache:
    """Writes k, v [B, K, S, D] of one layer into the first S slots of every row."""

    def put(held, new):
        if isinstance(held, list):
            return _with(held, layer, jax.lax.dynamic_update_slice(held[layer], new, (0,) * new.ndim))
        return jax.lax.dynamic_update_slice(held, new[None], (layer, *(0,) * new.ndim))

    return _each(put, cache, _in_form(cache, k, v))


def write(cache: Cache, layer: Any, positions: jax.Array, k: jax.Array, v: jax.Array) -> Cache:
    """Writes k, v [B, K, S, D] of one layer at `positions` [B, S]; what lies outside of the slots is dropped."""
    indices = jnp.arange(k.shape[0])[:, None, None], jnp.arange(k.shape[1])[:, None], positions[:, None]

    def put(held, new):
        if isinstance(held, list):
            return _with(held, layer, held[layer].at[indices].set(new, mode="drop"))
        return held.at[layer, *indices].set(new, mode="drop")

    return _each(put, cache, _in_form(cache, k, v))


def insert(cache: Cache, rows: jax.Array, new: Cache) -> Cache:
    """Writes the rows of a cache with S ≤ T slots over the first slots of `rows` int32 [B]; rows behind the last are
    dropped. Both are stacked, or both unstacked; `new` holds floats and is rounded where the other is int8."""
    slots, unstacked = slots_of(new), isinstance(cache["k"], list)

    def put(held, new):
        first = held.at[rows, :, :slots] if unstacked else held.at[:, rows, :, :slots]
        return first.set(new, mode="drop")

    return jax.tree.map(put, cache, _in_form(cache, new["k"], new["v"]))


def of_layer(cache: Cache, layer: Any) -> tuple[jax.Array, jax.Array, Scales | None, Any]:
    """k and v [N, B, K, T, D], of int8 the scales [N, B, K, T] of both, and the index among these N of the layer."""
    if isinstance(cache["k"], list):
        cache, layer = {name: held[layer][None] for name, held in cache.items()}, 0
    scales = (cache["k_scale"], cache["v_scale"]) if "k_scale" in cache else None
    return cache["k"], cache["v"], scales, layer


def alone(cache: Cache, layer: int) -> Cache:
    """Of an unstacked cache, that of one layer, which is layer 0 of it."""
    return {name: [held[layer]] for name, held in cache.items()}


def put_back(cache: Cache, layer: int, own: Cache) -> Cache:
    """An unstacked cache with that of one layer in its place."""
    return {name: _with(held, layer, own[name][0]) for name, held in cache.items()}


def _in_form(cache: Cache, k: Any, v: Any) -> Cache:
    """k and v, arrays [..., D] or lists of them, as this cache holds them."""
    dtype = jax.tree.leaves(cache["k"])[0].dtype
    new = {"k": k, "v": v}
    if not _is_scaled(dtype):
        return jax.tree.map(lambda x: x.astype(dtype), new)
    scales = jax.tree.map(quantization.step_sizes, new)
    return jax.tree.map(quantization.in_steps, new, scales) | {f"{name}_scale": own for name, own in scales.items()}


def _is_scaled(dtype: Any) -> bool:
    return jnp.dtype(dtype) == jnp.int8


def _each(put: Callable[[Any, jax.Array], Any], cache: Cache, new: Cache) -> Cache:
    return {name: put(held, new[name]) for name, held in cache.items()}


def _with(arrays: list[jax.Array], index: int, new: jax.Array) -> list[jax.Array]:
    return [*arrays[:index], new, *arrays[index + 1 :]]


def slots_of(cache: Cache) -> int:
    """T, the number of slots of each row."""
    return jax.tree.leaves(cache["k"])[0].shape[-2]


def bytes_per_token(config: ModelConfig, dtype: Any) -> int:
    """Memory of one slot of one row, in bytes, over all layers, scales included."""
    scale = jnp.dtype(jnp.float32).itemsize if _is_scaled(dtype) else 0
    return 2 * config.num_layers * config.num_kv_heads * (config.head_dim * jnp.dtype(dtype).itemsize + scale)
