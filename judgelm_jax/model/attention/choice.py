"""Which attention backend can do what, and which one a platform gets."""

import functools
import logging
from typing import Any

import jax.numpy as jnp

from judgelm_jax.model.config import ATTENTION_BACKENDS, NO_LIMITS, Limits

_PLATFORMS = {"cudnn": "gpu", "pallas": "gpu", "splash": "tpu"}  # of those that do not run everywhere
_PREFERRED = {"cpu": "blocked", "gpu": "cudnn", "tpu": "splash"}
_HALF = (jnp.bfloat16, jnp.float16)


def refuse(backend: str, width: int, dtype: Any, platform: str | None = None, limits: Limits = NO_LIMITS) -> None:
    """Raises a ValueError where a backend does not exist for heads of this width, this dtype, these limits or (where given)
    this platform.

    cuDNN's kernels want half precision. In float32 those of Pallas would multiply in TensorFloat-32 on GPUs, and in bfloat16 on
    TPUs in the backward pass. Wider heads do not fit into the shared memory of a GPU. JAX hands cuDNN no soft cap, and the
    kernel of Pallas for GPUs has neither that nor a window.
    """
    if backend not in ATTENTION_BACKENDS:
        raise ValueError(f"unknown attention backend {backend!r}; one of {', '.join(ATTENTION_BACKENDS)}")
    if platform is not None and _PLATFORMS.get(backend, platform) != platform:
        raise ValueError(
            f"the attention backend {backend} runs on the platform {_PLATFORMS[backend]}; the devices are {platform}"
        )
    if limits.window is not None and backend == "pallas":
        raise ValueError(f"the attention backend pallas has no window, and this model has one of {limits.window} tokens")
    if limits.softcap is not None and backend in ("cudnn", "pallas"):
        raise ValueError(f"the attention backend {backend} has no soft cap, and this model has one of {limits.softcap:g}")
    narrowest = {"cudnn": 8, "pallas": 16}.get(backend)
    if narrowest is not None and (jnp.dtype(dtype) not in _HALF or not narrowest <= width <= 128 or width % 8):
        raise ValueError(
            f"the attention backend {backend} needs bfloat16 or float16 and heads of {narrowest} to 128, a multiple of 8; not "
            f"{jnp.dtype(dtype)} and {width}"
        )
    if backend == "splash" and (jnp.dtype(dtype) != jnp.bfloat16 or width % 8):
        raise ValueError(
            f"the attention backend splash needs bfloat16 and heads of a multiple of 8; not {jnp.dtype(dtype)} and {width}"
        )


def backend_for(platform: str, width: int, dtype: Any, limits: Limits = NO_LIMITS) -> str:
    """The fastest backend on `platform` (`cpu`, `gpu`, `tpu`); where it cannot do this width, dtype or limits, `xla` and a log
    line."""
    preferred = _PREFERRED.get(platform, "xla")
    try:
        refuse(preferred, width, dtype, platform, limits)
    except ValueError as error:
        log_once(f"{error}: taking xla")
        return "xla"
    return preferred


@functools.cache
def log_once(message: str) -> None:
    """Says on the log, once in a process, that something slower was chosen."""
    logging.getLogger(__name__).warning(message)
