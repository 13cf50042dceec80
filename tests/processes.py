"""The environment of processes that tests start: programs are compiled as those of the tests, on devices of their own."""

import os

OPTIMIZE_LESS = "JAX_DISABLE_MOST_OPTIMIZATIONS"
# Options of XLA that halve the time of compiling without optimizations.
SIMPLE = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


def environment(devices: int = 1, **more: str) -> dict[str, str]:
    """What a process finds that has as many CPU devices as that, and shares all that other processes compiled."""
    import jax  # late: the flags of a test's own process are set before

    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag and flag not in SIMPLE]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    flags += SIMPLE if os.environ.get(OPTIMIZE_LESS) == "1" else ()
    own = {"XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    if jax.config.jax_compilation_cache_dir:
        own["JAX_COMPILATION_CACHE_DIR"] = jax.config.jax_compilation_cache_dir
    return os.environ | own | more


def xla_flags(*more: str) -> str:
    """The flags of XLA in this process, and more where it does not have them: the workers of a run have them from the first."""
    present = os.environ.get("XLA_FLAGS", "").split()
    return " ".join([*present, *(flag for flag in more if flag not in present)])
