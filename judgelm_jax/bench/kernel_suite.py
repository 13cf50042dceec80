"""Each attention backend on this machine against the definition spelled out in float32, on random data: errors and seconds."""

import dataclasses
import functools
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


@dataclasses.dataclass(frozen=True)
class Pass:
    """What is asked of each backend.

    `inputs`: arrays of the dtype, of these shapes; `program`: of a backend, to be compiled; `flops` of one call, `read`: bytes
    of the memory where that binds, by shapes and the size of a value; None: not said.
    """

    inputs: Callable[[Shapes, str], Arrays]
    program: Callable[[str, Shapes], Callable[..., Any]]
    flops: Callable[[Shapes], float] | None = None
    read: Callable[[Shapes, int], float] | None = None


def measure(shapes: Shapes, dtype: str, seconds: float) -> list[dict[str, Any]]:
    """Every backend: a forward pass, its gradient, the same with packed documents, one step of decoding over a cache.

    Returns one row each: `backend`, `what`, `error` (norm of the difference over that of the reference), `seconds`, `tflops`,
    `bytes_per_second` where the memory binds, `ok`; or `refused`, why the backend does not do this here.
    """
    platform = jax.devices()[0].platform
    rows: dict[tuple[str, str], dict[str, Any]] = {(backend, what): {} for backend in ATTENTION_BACKENDS for what in PASSES}
    for what, asked in PASSES.items():
        arrays = asked.inputs(shapes, dtype)
        with jax.default_matmul_precision("highest"):
            exact = jax.jit(asked.program("reference", shapes))(*(x.astype(jnp.float32) for x in arrays))
        for backend in ATTENTION_BACKENDS:
            row = rows[backend, what]
            row |= {"backend": backend, "what": what}
            try:
                try:
                    attention.refuse(backend, shapes.width, dtype, platform)
                    program = asked.program(backend, shapes)
                    jax.eval_shape(program, *arrays)  # while it is traced a backend refuses; what fails later is a fault
                except ValueError as error:
                    row["refused"] = str(error)
                    continue
                compiled = jax.jit(program)
                row["error"] = _error(compiled(*arrays), exact)
                row["seconds"] = fastest(functools.partial(compiled, *arrays), seconds)
            except Exception as error:  # a compiler or a driver that fails is a finding, and the others still run
                row |= {"failed": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}", "ok": False}
                continue
            row["ok"] = bool(row["error"] <= TOLERANCE[dtype])
            if asked.flops is not None:
                row["tflops"] = asked.flops(shapes) / row["seconds"] / 1e12
            if asked.read is not None:
                row["bytes_per_second"] = asked.read(shapes, arrays[0].dtype.itemsize) / row["seconds"]
    return list(rows.values())


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


@jax.jit
def _errors(ours: Any, wanted: Any) -> list[jax.Array]:
    """Of each array, the norm of the difference over that of the wanted one; on the device, for the arrays are large."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True)
    return [jnp.linalg.norm((a.astype(jnp.float32) - b).ravel()) / jnp.linalg.norm(b.ravel()) for a, b in pairs]


def _error(ours: Any, wanted: Any) -> float:
    """The largest over the arrays; not finite where ours are not."""
    errors = [float(error) for error in _errors(ours, wanted)]
    return max(errors) if np.isfinite(errors).all() else float("inf")


def _forward(backend: str, shapes: Shapes, packed: bool = False) -> Callable[..., jax.Array]:
    segments = _segments(shapes) if packed else None
    return lambda q, k, v: attention.attend(q, k, v, None, backend, segments)


def _gradient(backend: str, shapes: Shapes, packed: bool = False) -> Callable[..., Any]:
    attend = _forward(backend, shapes, packed)
    return jax.grad(lambda q, k, v: jnp.cos(attend(q, k, v).astype(jnp.float32)).sum(), argnums=(0, 1, 2))


def _cache(shapes: Shapes, dtype: str) -> Arrays:
    """One token of each row, and a cache of two layers."""
    cache = (2, shapes.rows, shapes.kv_heads, shapes.tokens, shapes.width)
    q = _normal(3, dtype, shapes.rows, 1, shapes.heads, shapes.width)
    return q, _normal(4, dtype, *cache), _normal(5, dtype, *cache)


def _used(shapes: Shapes) -> np.ndarray:
    """Slots of the cache that each row has used, from 1 to all."""
    return np.linspace(1, shapes.tokens, shapes.rows).astype(np.int32)


def _decode(backend: str, shapes: Shapes) -> Callable[..., jax.Array]:
    """One token of each row over the second layer of the cache, each row at its own length."""
    used = _used(shapes)
    mask = (np.arange(shapes.tokens)[None] < used[:, None])[:, None]
    return lambda q, k, v: attention.attend_cache(q, k, v, jnp.int32(1), jnp.asarray(mask), jnp.asarray(used), backend)


def _read(shapes: Shapes, itemsize: int) -> float:
    """Bytes of the used slots, of keys and values."""
    return 2 * int(_used(shapes).sum()) * shapes.kv_heads * shapes.width * itemsize


def _flops(shapes: Shapes) -> float:
    """Of a causal forward pass: two products, half of each."""
    return 2 * shapes.rows * shapes.heads * shapes.width * shapes.tokens**2


def _gradient_flops(shapes: Shapes) -> float:
    """Two products forward, five backward."""
    return 3.5 * _flops(shapes)


# What is asked of each backend, by name.
PASSES: dict[str, Pass] = {
    "forward": Pass(_inputs, _forward, flops=_flops),
    "gradient": Pass(_inputs, _gradient, flops=_gradient_flops),
    "forward, packed": Pass(_inputs, functools.partial(_forward, packed=True)),
    "gradient, packed": Pass(_inputs, functools.partial(_gradient, packed=True)),
    "decode": Pass(_cache, _decode, read=_read),
}
