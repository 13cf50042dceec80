"""Settings of JAX that every command shares."""

import os
from pathlib import Path

import jax


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the next run of the same shapes compiles nothing.

    The folder is `$JAX_COMPILATION_CACHE_DIR`, or `judgelm_jax/xla` under the user's cache folder.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") is None:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(base / "judgelm_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
