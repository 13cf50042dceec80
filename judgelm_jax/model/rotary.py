"""Rotary positions (Su et al., arXiv 2104.09864).

Letters of the shapes: B batch, S tokens, N heads, D width of a head.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from judgelm_jax.model.config import ModelConfig


def rotation(config: ModelConfig, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine [B, S, 1, D/2] in float32 of the angle of each position and frequency."""
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(frequencies(config))
    return jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]


def frequencies(config: ModelConfig) -> np.ndarray:
    """Radians per position of each pair of dimensions, float32 [D/2], scaled as the config says."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    plain = np.float32(1.0) / np.float32(config.rope_base) ** exponents
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    if scaling.kind == "linear":
        return plain / np.float32(scaling.factor)
    # llama3: a frequency that turns fewer than `low` times in the original context is slowed by `factor`, one that turns
    # more than `high` times is kept, and between the two the share of the kept one grows with the number of turns.
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    turns = scaling.original_context * plain / np.float32(2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return ((1 - kept) * plain / np.float32(scaling.factor) + kept * plain).astype(np.float32)


def rotate(x: jax.Array, rotation: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns dimension i and i + D/2 of x [B, S, N, D] by the angle of its position (half-rotation layout), in float32."""
    cosine, sine = rotation
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)
