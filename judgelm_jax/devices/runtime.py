"""What commands do with JAX before they compute: devices, the compilation cache."""

import functools
import os
import tempfile
from pathlib import Path

import jax

from judgelm_jax.errors import InputError
from judgelm_jax.notices import say_once

_LEAST_TIME = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


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

    The folder is `$JAX_COMPILATION_CACHE_DIR`, or `xla` in the cache folder; where none can be written, nothing is kept. Nor is
    what compiles faster than `$JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS`, else 0.2 s.
    """
    named = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if named is None:
        base = cache_folder()
        if base is not None:
            jax.config.update("jax_compilation_cache_dir", str(base / "xla"))
    elif named and "://" not in named and not _writable(Path(named)):
        jax.config.update("jax_compilation_cache_dir", None)  # else one warning for each program
        say_once(f"{named} (JAX_COMPILATION_CACHE_DIR) cannot be written: compiled programs are not kept")
    if _LEAST_TIME not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


@functools.cache
def cache_folder() -> Path | None:
    """`judgelm_jax` under the user's cache folder, which is made; None, said once on stderr, where it cannot be written."""
    home = os.environ.get("HOME") or os.path.expanduser("~")  # which stays `~` for a user of whom nothing is known
    base = os.environ.get("XDG_CACHE_HOME") or (os.path.join(home, ".cache") if os.path.isabs(home) else "")
    if base and _writable(Path(base) / "judgelm_jax"):
        return Path(base) / "judgelm_jax"
    place = f"{base} cannot be written" if base else "there is no HOME"
    say_once(f"{place}: compiled programs and fingerprints are not kept; set XDG_CACHE_HOME to a folder that can be written")
    return None


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def is_first_process() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def memory_bytes() -> int | None:
    """The most memory in use so far: of the first device, or on a CPU of the process."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "peak_bytes_in_use" in statistics:
        return statistics["peak_bytes_in_use"]
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
