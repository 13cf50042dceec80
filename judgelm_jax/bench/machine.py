"""What a machine can do: FLOP/s of a large matrix product, bytes/s of a copy. One device, best of several."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

_SECONDS = 0.5  # of each repetition, at least: so long that starting a program costs nothing
_REPETITIONS = 4


def matmul_flops(dtype: Any, width: int) -> float:
    """FLOP/s of [width, width] times [width, width], of and to this dtype; accelerators add up in float32."""
    a, b = (jax.random.normal(jax.random.key(seed), (width, width), jnp.float32).astype(dtype) for seed in (0, 1))
    product = jax.jit(jnp.matmul)
    return 2 * width**3 / fastest(lambda: product(a, b))


def memory_bandwidth(size: int) -> float:
    """Bytes/s, read and written, of adding one to `size` float32 values."""
    x = jnp.zeros(size, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    return 2 * x.nbytes / fastest(lambda: add(x))


def fastest(run: Callable[[], Any], seconds: float = _SECONDS) -> float:
    """Seconds of one call that starts work on a device: the best of several repetitions, after one that compiles."""
    jax.block_until_ready(run())
    start = time.perf_counter()
    jax.block_until_ready(run())
    calls = max(1, min(1000, int(seconds / max(1e-9, time.perf_counter() - start))))
    best = float("inf")
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        for _ in range(calls):
            out = run()
        jax.block_until_ready(out)
        best = min(best, (time.perf_counter() - start) / calls)
    return best
