"""How much a step computes, and which share of the devices' peak that is."""

import time

import jax
import jax.numpy as jnp

from judgelm_jax.devices import hardware
from judgelm_jax.model import parameters
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.layer_pattern import kinds_of


def peak_flops(tflops: float, dtype: str) -> float | None:
    """FLOP/s of all devices; `tflops` 0: by the name of the device, None where that says nothing."""
    known = hardware.of_kind(jax.devices()[0].device_kind) if dtype == "bfloat16" else None
    one = tflops * 1e12 or (None if known is None else known.flops)
    return None if one is None else one * jax.device_count()


def step_flops(config: ModelConfig, tokens: float, squares: float, targets: float, adapters_only: bool) -> float:
    """Model FLOPs of one step: what the mathematics needs, with nothing for padding or for what is computed again.

    2 FLOPs a weight and token forward, 4 backward (2 where only adapters learn). Attention is counted causally: a token sees
    half of its document on average. The output matrix is counted for target tokens only, as only they meet it.

    Args:
      tokens: in documents.
      squares: the sum of the squared lengths of the documents, with windows the sum of `twice_seen` over their tokens.
    """
    tensors = parameters.declared(config)
    layers = sum(tensor.size for tensor in tensors.values() if tensor.of_layers and tensor.is_matrix)
    output = tensors["embed_tokens" if config.tied_embeddings else "lm_head", "weight"].size
    forward_and_backward = 2 * (2 if adapters_only else 3)
    dense = forward_and_backward * (layers * tokens + output * targets)
    # 2 products × 2 FLOPs × half, forward; twice that backward
    return dense + 6 * config.num_layers * config.num_heads * config.head_dim * squares


def twice_seen(config: ModelConfig, positions: jax.Array) -> jax.Array:
    """Twice the number of tokens that a token at each position sees, less one, as a mean over the layers.

    The sum over a document is the square of its length where no window binds.
    """
    windows = [kind.window for kind in kinds_of(config, config.context)]
    seen = 2 * positions + 1
    if set(windows) == {None}:
        return seen
    counts = {window: windows.count(window) for window in dict.fromkeys(windows)}
    parts = [count * (seen if window is None else jnp.minimum(seen, 2 * window - 1)) for window, count in counts.items()]
    return sum(parts[1:], parts[0]) / config.num_layers


class Clock:
    """Seconds of a step: from one lap to the next, so that a lap after an evaluation or a save keeps those out of it."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the lap before."""
        now = time.perf_counter()
        seconds, self._last = now - self._last, now
        return seconds
