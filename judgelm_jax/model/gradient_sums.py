"""Float32 masters that learn in place: the backward pass adds the gradient of each layer to sums where they lie.

```
forward    x ─ layer 0 ─ layer 1 ─ ... ─ out        what enters each layer is kept, nothing else
backward   layer L-1 is computed again, its gradient is added to row L-1 of the sums; then layer L-2, ...
```
Without this, a micro-batch leaves a whole tree of gradients that are added to the sums afterwards, and a whole tree of weights
in the dtype of the computation lies beside the masters: at 33 billion parameters, 23 GiB a device of eight. Here no more than
the weights and the gradient of one layer exist beside masters and sums.

The sums enter a pass as parameters whose "gradient" is what they are afterwards: `jax.grad` with respect to them gives the
sums with the gradient of this pass added.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# (x, index of the layer, its weights) → x
RunLayer = Callable[[jax.Array, jax.Array, Any], jax.Array]
# Weights of one layer → the same in the dtype of the computation, where they lie; or a gradient of them, likewise.
Place = Callable[[Any], Any]


class Summed(NamedTuple):
    """Stacked layers: `masters` and `sums`, trees of float32 arrays [L, ...] of the same shapes.

    `cast` gives the weights of one layer as they compute, `place` puts a gradient of one layer where its sums lie.
    """

    masters: Any
    sums: Any
    cast: Place
    place: Place


def scan(run_layer: RunLayer, x: jax.Array, layers: Summed) -> jax.Array:
    """`x` after all layers, one after another."""
    return _scan(run_layer, layers.cast, layers.place, x, layers.masters, layers.sums)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def tapped(cast: Place, place: Place, master: Any, total: Any) -> Any:
    """The weights `cast(master)` of what is no layer, whose gradient is added to `total`."""
    return cast(master)


def _tapped_forward(cast: Place, place: Place, master: Any, total: Any) -> tuple[Any, Any]:
    return cast(master), total


def _tapped_backward(cast: Place, place: Place, total: Any, gradient: Any) -> tuple[Any, Any]:
    return None, _plus(total, place(gradient))


tapped.defvjp(_tapped_forward, _tapped_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _scan(run_layer: RunLayer, cast: Place, place: Place, x: jax.Array, masters: Any, sums: Any) -> jax.Array:
    return _forward(run_layer, cast, place, x, masters, sums)[0]


def _forward(run_layer: RunLayer, cast: Place, place: Place, x: jax.Array, masters: Any, sums: Any) -> tuple[jax.Array, Any]:
    def step(x, scanned):
        layer, own = scanned
        return run_layer(x, layer, cast(own)), x

    out, entered = jax.lax.scan(step, x, (jnp.arange(_count(masters)), masters))
    return out, (entered, masters, sums)


def _backward(run_layer: RunLayer, cast: Place, place: Place, kept: Any, cotangent: jax.Array) -> tuple[jax.Array, None, Any]:
    entered, masters, sums = kept

    def step(carry, scanned):
        cotangent, sums = carry
        layer, x, own = scanned
        _, pull = jax.vjp(lambda x, weights: run_layer(x, layer, weights), x, cast(own))
        cotangent, gradient = pull(cotangent)
        before = jax.tree.map(lambda total: jax.lax.dynamic_index_in_dim(total, layer, keepdims=False), sums)
        after = _plus(before, place(gradient))
        sums = jax.tree.map(lambda total, row: jax.lax.dynamic_update_index_in_dim(total, row, layer, 0), sums, after)
        return (cotangent, sums), None

    scanned = (jnp.arange(_count(masters)), entered, masters)
    (cotangent, sums), _ = jax.lax.scan(step, (cotangent, sums), scanned, reverse=True)
    return cotangent, None, sums


_scan.defvjp(_forward, _backward)


def _plus(total: Any, gradient: Any) -> Any:
    return jax.tree.map(lambda one, more: one + more.astype(one.dtype), total, gradient)


def _count(masters: Any) -> int:
    return jax.tree.leaves(masters)[0].shape[0]
