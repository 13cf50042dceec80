"""What commands do with JAX before they compute: devices, the compilation cache."""

import os
from pathlib import Path

import jax

from judgelm_jax.errors import InputError


def require_devices() -> None:
    """Starts JAX on its devices.

    Raises:
      InputError: the platform that was asked for is not there.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).partition("\n")[0] or "no such device"
        raise InputError(
            f"JAX cannot start on the platform {wanted!r} ({reason}); install the package with [cuda] or [tpu] there, or "
            "unset JAX_PLATFORMS"
        ) from error


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that the next run of the same shapes compiles nothing.

    The folder is `$JAX_COMPILATION_CACHE_DIR`, or `judgelm_jax/xla` under the user's cache folder; without either nothing is
    kept.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") is None:
        try:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        except RuntimeError:  # a user without a home, as in containers
            return
        jax.config.update("jax_compilation_cache_dir", str(base / "judgelm_jax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def is_first_process() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0
