"""Causal attention with grouped queries: one signature, several backends.

| backend | runs on | segments | window | soft cap | decoding reads |
| --- | --- | --- | --- | --- | --- |
| `reference` | any | yes | yes | yes | all slots given |
| `xla` | any | yes | yes | yes | all slots given |
| `blocked` | any, made for CPUs | yes | yes, skips what is before it | yes | all slots given |
| `cudnn` | NVIDIA GPUs, half precision | no | yes | no | all slots given (by `xla`) |
| `pallas` | NVIDIA GPUs, half precision | yes | no | when decoding | the used slots; with a window all (by `xla`) |
| `splash` | TPUs, bfloat16 | yes | yes, skips what is before it | yes | the used slots; with a window all (by `xla`) |

An int8 cache: `pallas` reads its used slots; `xla`, `blocked`, `cudnn` and `splash` multiply all slots given by plain products.

All but `splash` were held to the definition on a GPU (bench/README.md, "One H200"), an int8 cache on CPUs only. `splash` is
interpreted on CPUs and compiled for TPU v5e, v5p and v6e; it has not been run on one.
"""

from judgelm_jax.model.attention.choice import backend_for, log_once, refuse
from judgelm_jax.model.attention.dispatch import attend, attend_cache
from judgelm_jax.model.attention.pages import PAGE
from judgelm_jax.model.attention.products import cache_mask

__all__ = ["PAGE", "attend", "attend_cache", "backend_for", "cache_mask", "log_once", "refuse"]
