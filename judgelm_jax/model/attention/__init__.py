"""Causal attention with grouped queries: one signature, several backends.

| backend | runs on | segments | decoding reads |
| --- | --- | --- | --- |
| `reference` | any | yes | all slots given |
| `xla` | any | yes | all slots given |
| `blocked` | any, made for CPUs | yes | all slots given |
| `cudnn` | NVIDIA GPUs, half precision | no | all slots given (by `xla`) |
| `pallas` | NVIDIA GPUs, half precision | yes | the used slots |
| `splash` | TPUs, bfloat16 | yes | the used slots |

What could be tried without the hardware: `pallas` and `splash` are interpreted on CPUs, and compiled for A100 and H100 and for
TPU v5e, v5p and v6e; neither has been run on one. `cudnn` gets through the compiler of XLA for A100 and H100, which builds the
fused kernel itself only on a GPU; it has not been run.
"""

from judgelm_jax.model.attention.choice import backend_for, log_once, refuse
from judgelm_jax.model.attention.dispatch import attend, attend_cache
from judgelm_jax.model.attention.pages import PAGE
from judgelm_jax.model.attention.products import cache_mask

__all__ = ["PAGE", "attend", "attend_cache", "backend_for", "cache_mask", "log_once", "refuse"]
