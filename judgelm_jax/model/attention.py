"""Causal attention with grouped queries: one signature, several backends.

Letters of the shapes: B batch, S queries, T keys, H query heads, K key/value heads, D width of a head.
"""

import jax
import jax.numpy as jnp

BACKENDS = ("reference", "xla", "blocked")

# Queries of one block of the `blocked` backend. Its scores, B × H × 128 × T floats, stay in the caches of a CPU core.
_BLOCK = 128


def attend(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array | None, backend: str) -> jax.Array:
    """Softmax attention of each query over the keys that it may see. The softmax is computed in float32.

    Args:
      q: [B, S, H, D].
      k, v: [B, T, K, D]; query head h reads key/value head h // (H / K).
      positions: None where queries and keys are the same tokens in order (training, prefill; S = T): query s sees the keys
        0..s. Else int32 [B, S], the place of each query among the keys (a cache): it sees the keys 0..positions[b, s].
      backend: `reference` spells the definition out in float32; `xla` is `jax.nn.dot_product_attention`; `blocked` computes
        prefill a block of queries at a time against the keys up to the block's end, so that nearly nothing above the
        diagonal is computed (for CPUs, where no fused kernel exists), and is `xla` where `positions` are given.

    Returns:
      [B, S, H, D] in the dtype of q.
    """
    if positions is None and q.shape[1] != k.shape[1]:
        raise ValueError(f"without positions, {q.shape[1]} queries need as many keys, not {k.shape[1]}")
    if backend == "reference":
        return _reference(q, k, v, positions)
    if backend == "xla" or (backend == "blocked" and positions is not None):
        return _xla(q, k, v, positions)
    if backend == "blocked":
        return _blocked(q, k, v)
    raise ValueError(f"unknown attention backend {backend!r}; one of {', '.join(BACKENDS)}")


def backend_for(platform: str) -> str:
    """The fastest backend on `platform` (`cpu`, `gpu`, `tpu`)."""
    return "blocked" if platform == "cpu" else "xla"


def _visible(queries: int, keys: int, positions: jax.Array | None) -> jax.Array:
    """[B or 1, S, T], true where the query may see the key."""
    places = jnp.arange(queries)[None] if positions is None else positions
    return jnp.arange(keys)[None, None, :] <= places[:, :, None]


def _reference(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array | None) -> jax.Array:
    queries, width = q.shape[1], q.shape[3]
    groups = q.shape[2] // k.shape[2]
    q32, k32, v32 = (x.astype(jnp.float32) for x in (q, k, v))
    k32, v32 = (jnp.repeat(x, groups, axis=2) for x in (k32, v32))  # [B, T, H, D]
    scores = jnp.einsum("bshd,bthd->bhst", q32, k32, precision="highest") * width**-0.5
    scores = jnp.where(_visible(queries, k.shape[1], positions)[:, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)  # [B, H, S, T]
    return jnp.einsum("bhst,bthd->bshd", weights, v32, precision="highest").astype(q.dtype)


def _xla(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array | None) -> jax.Array:
    if positions is None:
        return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="xla")
    mask = _visible(q.shape[1], k.shape[1], positions)[:, None]  # [B, 1, S, T]
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")


def _blocked(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    blocks = []
    for start in range(0, q.shape[1], _BLOCK):
        end = min(start + _BLOCK, q.shape[1])
        mask = _visible(end - start, end, jnp.arange(start, end)[None])[:, None]
        blocks.append(jax.nn.dot_product_attention(q[:, start:end], k[:, :end], v[:, :end], mask=mask, implementation="xla"))
    return jnp.concatenate(blocks, axis=1)
