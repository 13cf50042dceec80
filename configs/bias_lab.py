"""The small judges of the bias laboratory, from random weights; `judgelm-ablate` trains them with and without techniques."""

from judgelm_jax.laboratory.recipe import get_config

__all__ = ["get_config"]
