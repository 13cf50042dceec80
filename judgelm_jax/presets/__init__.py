"""How other open judges are asked and read, as data: one TOML file each. Imports no JAX."""

from judgelm_jax.presets.asking import kind_of
from judgelm_jax.presets.reading import JUDGELM, NAMES, Preset, load_preset

__all__ = ["JUDGELM", "NAMES", "Preset", "kind_of", "load_preset"]
