"""Each attention backend on this machine against the definition spelled out in float32, on random data: errors and seconds."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from judgelm_jax.bench.machine import fastest
from judgelm_jax.model import attention
from judgelm_jax.model.config import ATTENTION_BACKENDS

# The largest error that rounding explains, as a share of the norm of the result. bfloat16 keeps 8 bits, and probabilities and
# their gradients are rounded to it between the products of a fused kernel.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.02}

Arrays = tuple[jax.Array, ...]


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Of the random data: rows, tokens of each, query heads, key/value heads, width of a head."""

    rows: int
    tokens: int
    heads: int
    kv_heads: int
    width: int


def measure(shapes: Shapes, dtype: str, seconds: float) -> list[dict[str, Any]]:
    """Every backend: a forward pass, its gradient, the same with packed documents, one step of decoding over a cache.

    Returns one row each: `backend`, `what`, `error` (norm of the difference over that of the reference), `seconds`, `tflops`,
    `bytes_per_second` where the memory binds, `ok`; or `refused`, why the backend does not do this here.
    """
    platform = jax.devices()[0].platform
    rows: list[dict[str, Any]] = []
    for backend in ATTENTION_BACKENDS:
        for what, run in PASSES.items():
            row: dict[str, Any] = {"backend": backend, "what": what}
            rows.append(row)
            try:
                attention.refuse(backend, shapes.width, dtype, platform)
                row |= run(backend, shapes, dtype, seconds)
            except ValueError as error:
                row["refused"] = str(error)
                continue
            except Exception as error:  # a compiler or a driver that fails is a finding, and the others still run
                row |= {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}", "ok": False}
                continue
            row["ok"] = bool(row["error"] <= TOLERANCE[dtype])
    return rows


def _normal(seed: int, dtype: str, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, jnp.float32).astype(dtype)


def _inputs(shapes: Shapes, dtype: str) -> Arrays:
    keys = (shapes.rows, shapes.kv_heads, shapes.tokens, shapes.width)
    queries = (shapes.rows, shapes.tokens, shapes.heads, shapes.width)
    return _normal(0, dtype, *queries), _normal(1, dtype, *keys), _normal(2, dtype, *keys)


def _segments(shapes: Shapes) -> jax.Array:
    """Three documents a row, of unlike lengths."""
    bounds = np.asarray([shapes.tokens // 5, shapes.tokens // 2])
    return jnp.broadcast_to(
        jnp.asarray(1 + np.searchsorted(bounds, np.arange(shapes.tokens), "right"), jnp.int32), (shapes.rows, shapes.tokens)
    )


def _error(ours: Any, wanted: Any) -> float:
    """The largest over the arrays; not finite where ours are not."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True)
    errors = [
        float(np.linalg.norm(np.asarray(a, np.float64) - np.asarray(b, np.float64)) / np.linalg.norm(np.asarray(b, np.float64)))
        for a, b in pairs
    ]
    return max(errors) if np.isfinite(errors).all() else float("inf")


def _compare(
    run: Callable[..., Any], wanted: Callable[..., Any], arrays: tuple[jax.Array, ...], seconds: float
) -> dict[str, Any]:
    compiled = jax.jit(run)
    with jax.default_matmul_precision("highest"):
        exact = jax.jit(wanted)(*(x.astype(jnp.float32) for x in arrays))
    return {"error": _error(compiled(*arrays), exact), "seconds": fastest(lambda: compiled(*arrays), seconds)}


def _forward(backend: str, shapes: Shapes, dtype: str, seconds: float, packed: bool = False) -> dict[str, Any]:
    segments = _segments(shapes) if packed else None
    run = _attend(backend, segments)
    result = _compare(run, _attend("reference", segments), _inputs(shapes, dtype), seconds)
    return result if packed else result | {"tflops": _flops(shapes) / result["seconds"] / 1e12}


def _gradient(backend: str, shapes: Shapes, dtype: str, seconds: float, packed: bool = False) -> dict[str, Any]:
    segments = _segments(shapes) if packed else None

    def gradient(attend: Callable[..., jax.Array]) -> Callable[..., Any]:
        return jax.grad(lambda q, k, v: jnp.cos(attend(q, k, v).astype(jnp.float32)).sum(), argnums=(0, 1, 2))

    result = _compare(
        gradient(_attend(backend, segments)), gradient(_attend("reference", segments)), _inputs(shapes, dtype), seconds
    )
    return result if packed else result | {"tflops": 3.5 * _flops(shapes) / result["seconds"] / 1e12}


def _decode(backend: str, shapes: Shapes, dtype: str, seconds: float) -> dict[str, Any]:
    """One token of each row over the second layer of a cache of two, each row at its own length."""
    cache = (2, shapes.rows, shapes.kv_heads, shapes.tokens, shapes.width)
    q = _normal(3, dtype, shapes.rows, 1, shapes.heads, shapes.width)
    used = jnp.asarray(np.linspace(1, shapes.tokens, shapes.rows), jnp.int32)
    mask = (jnp.arange(shapes.tokens)[None] < used[:, None])[:, None]

    def run(q: jax.Array, k: jax.Array, v: jax.Array, own: str = backend) -> jax.Array:
        return attention.attend_cache(q, k, v, jnp.int32(1), mask, used, own)

    arrays = (q, _normal(4, dtype, *cache), _normal(5, dtype, *cache))
    result = _compare(run, lambda q, k, v: run(q, k, v, "reference"), arrays, seconds)
    read = 2 * int(used.sum()) * shapes.kv_heads * shapes.width * arrays[1].dtype.itemsize
    return result | {"bytes_per_second": read / result["seconds"]}


def _attend(backend: str, segments: jax.Array | None) -> Callable[..., jax.Array]:
    return lambda q, k, v: attention.attend(q, k, v, None, backend, segments)


def _flops(shapes: Shapes) -> float:
    """Of a causal forward pass: two products, half of each."""
    return 2 * shapes.rows * shapes.heads * shapes.width * shapes.tokens**2


def _packed(run: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    return lambda *arguments: run(*arguments, packed=True)


# What is asked of each backend, by name.
PASSES: dict[str, Callable[..., dict[str, Any]]] = {
    "forward": _forward,
    "gradient": _gradient,
    "forward, packed": _packed(_forward),
    "gradient, packed": _packed(_gradient),
    "decode": _decode,
}
