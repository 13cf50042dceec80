"""Attention of a forward pass: among the tokens themselves, or over a cache.

Letters of the shapes: B batch, S queries, T keys, H query heads, K key/value heads, D width of a head, L layers.
"""

import functools
from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from judgelm_jax.devices.sharding import LogicalAxes, spec
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model.attention.choice import log_once, refuse
from judgelm_jax.model.attention.products import blocked, causal_mask, library, masked, reference, same_segment
from judgelm_jax.model.config import NO_LIMITS, Limits

_QUERIES: LogicalAxes = ("batch", "sequence", "heads", "head_dim")
_KEYS: LogicalAxes = ("batch", "kv_heads", "sequence", "head_dim")
# The kernels of Pallas compute whole tiles: rows are padded to a multiple, behind all real tokens.
_MULTIPLE = 128


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None,
    backend: str,
    segments: jax.Array | None = None,
    spans: jax.Array | None = None,
    mesh: Mesh | None = None,
    limits: Limits = NO_LIMITS,
    scales: kv_cache.Scales | None = None,
) -> jax.Array:
    """Softmax attention of each query over the keys that it may see. The softmax is computed in float32.

    Args:
      q: [B, S, H, D].
      k, v: [B, K, T, D], the layout of the cache; query head h reads key/value head h // (H / K).
      mask: None where queries and keys are the same tokens in order (training, prefill; S = T): query s sees the keys 0..s.
        Else bool [B or 1, S, T], true where a query sees a key (of a cache); each query must see one.
      backend: `reference` spells the definition out in float32; `xla` is `jax.nn.dot_product_attention`; `blocked` computes
        prefill a block of queries at a time (for CPUs, where no fused kernel exists). `cudnn` (NVIDIA's), `pallas` (GPUs) and
        `splash` (TPUs) are fused kernels for prefill and training, and are `xla` where a mask is given.
      segments: int32 [B, S], without a mask: a query sees only keys of its own number. `cudnn` cannot do that.
      spans: int32 [B, 2], without a mask: the first query of each row whose output is wanted, and the one behind the last. The
        others get anything finite; `blocked` saves their time.
      mesh: the mesh of a sharded forward pass, over which `blocked` and the kernels of Pallas are split by batch and heads.
      limits: a window, where there is no mask, and a soft cap. A window of S tokens or more is none.
      scales: with a mask, of int8 k and v: float32 [B, K, T], what the numbers of each key and of each value are multiplied by.

    Returns:
      [B, S, H, D] in the dtype of q.

    Raises:
      ValueError: the backend cannot do what is asked.
    """
    if mask is None and q.shape[1] != k.shape[2]:
        raise ValueError(f"without a mask, {q.shape[1]} queries need as many keys, not {k.shape[2]}")
    if mask is not None and (segments is not None or spans is not None):
        raise ValueError("segments and spans are for queries and keys that are the same tokens: give no mask")
    if mask is not None and limits.window is not None:
        raise ValueError("a mask says whom a query sees: a window belongs in it")
    if limits.window is not None and limits.window >= q.shape[1]:
        limits = limits._replace(window=None)
    if segments is not None and backend == "cudnn":
        raise ValueError(
            "the attention backend cudnn has no segments for the documents of a row; take xla or pallas, or do not pack"
        )
    refuse(backend, q.shape[3], q.dtype, limits=limits if mask is None else NO_LIMITS)
    if segments is not None and backend in ("reference", "xla"):
        mask = same_segment(segments, segments) & causal_mask(q.shape[1], limits.window)
    if backend == "reference":
        return reference(q, k, v, mask, limits, scales)
    if backend == "blocked" and mask is None:
        return _by_row(functools.partial(blocked, limits=limits), mesh, q, k, v, segments, spans)
    capped = limits.softcap is not None and (backend == "xla" or mask is not None)
    if backend == "blocked" or capped or scales is not None:
        return masked(q, k, v, causal_mask(q.shape[1], limits.window) if mask is None else mask, limits.softcap, scales)
    if backend == "xla" or mask is not None:
        return library(q, k, v, mask, "xla", limits.window)
    if backend == "cudnn":
        return library(q, k, v, None, "cudnn", limits.window)
    if limits != NO_LIMITS:
        return _tiled(q, k, v, segments, functools.partial(_kernels(backend).prefill, limits=limits), mesh)
    return _tiled(q, k, v, segments, _kernels(backend).prefill, mesh)


def attend_cache(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    layer: jax.Array | int,
    mask: jax.Array,
    used: jax.Array | None,
    backend: str,
    mesh: Mesh | None = None,
    limits: Limits = NO_LIMITS,
    scales: kv_cache.Scales | None = None,
) -> jax.Array:
    """Attention of new tokens over one layer of a cache in which their keys and values have been written.

    Args:
      q: [B, S, H, D]; k, v: [L, B, K, T, D], the cache of some layers; layer: int32 scalar, the number of one.
      mask: bool [B, S, V], true where a query sees one of the first V ≤ T slots.
      used: int32 [B] with values from 1 to V, where S is 1 and each query sees that many first slots: what the
        mask says, in the form that `pallas` and `splash` need to read no more than that. Where they cannot read the cache so
        (its slots are no multiple of 16, say), they read it as `xla` does, and a log line says so once.
      backend, mesh: as in `attend`.
      limits: the window, which is in the mask already and which no kernel that reads used slots has, and the soft cap.
      scales: of an int8 cache: float32 [L, B, K, T], of its keys and of its values.

    Returns:
      [B, S, H, D] in the dtype of q.
    """
    batch, queries, _, width = q.shape
    if used is not None and queries != 1:
        raise ValueError(f"the used slots are those of one token a row, not of {queries}")
    if used is not None and backend in ("pallas", "splash"):
        refuse(backend, width, q.dtype)
        try:
            if limits.window is not None:
                raise ValueError(f"it has no window of {limits.window} tokens over a cache")
            rows = batch * k.shape[2] // (1 if mesh is None else mesh.size)
            _kernels(backend).refuse_decode(rows, k.shape[3], width, k.dtype)
        except ValueError as error:
            log_once(f"the attention backend {backend} reads whole caches: {error}")
        else:
            decode = _kernels(backend).decode
            if limits.softcap is not None:
                decode = functools.partial(decode, softcap=limits.softcap)
            scale_axes = () if scales is None else (kv_cache.SCALE_AXES,) * 2
            split = _split(decode, mesh, (_QUERIES, kv_cache.AXES, kv_cache.AXES, (), ("batch",), *scale_axes))
            return split(q, k, v, layer, used, *scales or ())
    keys, values = (x[layer, :, :, : mask.shape[2]] for x in (k, v))
    if scales is not None:
        scales = scales[0][layer, :, :, : mask.shape[2]], scales[1][layer, :, :, : mask.shape[2]]
    return attend(q, keys, values, mask, backend, limits=limits._replace(window=None), scales=scales)


def _tiled(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array | None, kernel: Callable[..., jax.Array], mesh: Mesh | None
) -> jax.Array:
    """`kernel` over rows that are padded to a multiple of its tiles: causally, no real token sees the padding."""
    length = q.shape[1]
    added = (0, -length % _MULTIPLE)
    q = jnp.pad(q, ((0, 0), added, (0, 0), (0, 0)))
    k, v = (jnp.pad(x, ((0, 0), (0, 0), added, (0, 0))) for x in (k, v))
    segments = None if segments is None else jnp.pad(segments, ((0, 0), added))
    return _by_row(kernel, mesh, q, k, v, segments)[:, :length]


def _by_row(kernel: Callable[..., jax.Array], mesh: Mesh | None, *arrays: jax.Array | None) -> jax.Array:
    """`kernel` over the rows and heads of each device, of q, k, v and, where there are any, segments and spans."""
    axes: tuple[LogicalAxes, ...] = (_QUERIES, _KEYS, _KEYS, ("batch", "sequence"), ("batch", None))
    return _split(kernel, mesh, axes[: len(arrays)])(*arrays)


def _split(kernel: Callable[..., jax.Array], mesh: Mesh | None, axes: tuple[LogicalAxes, ...]) -> Callable[..., jax.Array]:
    """`kernel` over the part of each device, of arguments with these logical axes; the compiler cannot split it by itself."""
    if mesh is None:
        return kernel
    specs = tuple(spec(names) for names in axes)
    return jax.shard_map(kernel, mesh=mesh, in_specs=specs, out_specs=spec(_QUERIES), check_vma=False)


def _kernels(backend: str) -> ModuleType:
    """Imported when they are needed: their import costs time, and JAX 0.11 warns that those for GPUs will move."""
    if backend == "pallas":
        from judgelm_jax.model.attention import gpu

        return gpu
    from judgelm_jax.model.attention import tpu

    return tpu
