"""Rotary positions (Su et al., arXiv 2104.09864).

Letters of the shapes: B batch, S tokens, N heads, D width of a head.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from judgelm_jax.model.config import LayerKind, ModelConfig, RopeScaling

Rotation = tuple[jax.Array, jax.Array]


def rotation(config: ModelConfig, positions: jax.Array, kind: LayerKind = LayerKind()) -> Rotation:  # noqa: B008
    """Cosine and sine [B, S, 1, D/2] in float32 of the angle of each position and frequency, in layers of this kind."""
    angles = positions[..., None].astype(jnp.float32) * jnp.asarray(frequencies(config, kind))
    cosine, sine = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    scaling = config.rope_scaling
    if scaling is None or scaling.attention_factor == 1 or kind.rope_base is not None:
        return cosine, sine
    return cosine * scaling.attention_factor, sine * scaling.attention_factor


def frequencies(config: ModelConfig, kind: LayerKind = LayerKind()) -> np.ndarray:  # noqa: B008
    """Radians per position of each pair of dimensions, float32 [D/2], scaled as the config says."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    base = config.rope_base if kind.rope_base is None else kind.rope_base
    plain = np.float32(1.0) / np.float32(base) ** exponents
    scaling = config.rope_scaling
    if scaling is None or kind.rope_base is not None:
        return plain
    if scaling.kind == "linear":
        return plain / np.float32(scaling.factor)
    if scaling.kind == "longrope":
        factors = scaling.long_factors if config.context > scaling.original_context else scaling.short_factors
        return plain / np.asarray(factors, np.float32)
    if scaling.kind == "yarn":
        kept = _kept_by_yarn(base, config.head_dim, scaling)
        return ((1 - kept) * plain / np.float32(scaling.factor) + kept * plain).astype(np.float32)
    # llama3: a frequency that turns fewer than `low` times in the original context is slowed by `factor`, one that turns
    # more than `high` times is kept, and between the two the share of the kept one grows with the number of turns.
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    turns = scaling.original_context * plain / np.float32(2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0).astype(np.float32)
    return ((1 - kept) * plain / np.float32(scaling.factor) + kept * plain).astype(np.float32)


def _kept_by_yarn(base: float, width: int, scaling: RopeScaling) -> np.ndarray:
    """float32 [D/2]: the share of each frequency that `yarn` keeps, 1 for the fastest."""

    def dimension(turns: float) -> float:
        """The pair of dimensions that turns so often in the original context."""
        return width * math.log(scaling.original_context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    slowed = (np.arange(width // 2, dtype=np.float32) - low) / (high - low or 0.001)
    return (1 - np.clip(slowed, 0, 1)).astype(np.float32)


def rotate(x: jax.Array, rotation: Rotation, scale: float = 1.0) -> jax.Array:
    """Turns dimension i and i + D/2 of x [B, S, N, D] by the angle of its position (half-rotation layout), in float32, and
    multiplies by `scale`."""
    cosine, sine = rotation
    if scale != 1:
        cosine, sine = cosine * scale, sine * scale
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x.dtype)
