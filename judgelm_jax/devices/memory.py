"""How much memory a device has for programs, and how much a compiled program needs of it."""

import contextlib
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from judgelm_jax.errors import InputError

GIB = 2**30
# What XLA says where memory is short: the runtime of every platform, and compilers for TPUs.
_SHORT = re.compile(r"RESOURCE_EXHAUSTED|[Oo]ut of memory|CompileTimeHbmOom|Ran out of memory in memory space hbm")


def bytes_on_device(tree: Any) -> int:
    """Bytes of the arrays of a tree, or of shapes with shardings, on one device."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def shown(size: float) -> str:
    """Bytes as GiB with three digits, rounded up, so that what is said to suffice does."""
    if size <= 0:
        return "0 GiB"
    step = 10.0 ** (math.floor(math.log10(size / GIB)) - 2)
    return f"{math.ceil(size / GIB / step * (1 - 1e-12)) * step:.3g} GiB"


def room_beside(held: Any, mesh: Mesh, gibibytes: float | None) -> float | None:
    """Bytes of a device of `mesh` for what is not yet there, beside the arrays `held`; None where nobody knows.

    `gibibytes`: of the device in all, instead of what it says of itself.
    """
    if gibibytes is not None:
        return gibibytes * GIB - bytes_on_device(held)
    said = mesh.local_devices[0].memory_stats()
    room = said["bytes_limit"] - said.get("bytes_in_use", 0) if said and "bytes_limit" in said else None
    if room is not None and jax.process_count() > 1:  # all processes must compute in the same sizes
        from jax.experimental import multihost_utils

        return float(multihost_utils.process_allgather(np.float32(room)).min())
    return room


def beside_arguments(executable: jax.stages.Compiled) -> int:
    """Bytes on one device that a program needs while it runs, beside its arguments: results and temporaries."""
    said: Any = executable.memory_analysis()
    return said.temp_size_in_bytes + said.output_size_in_bytes - said.alias_size_in_bytes


def compile_or_none(lowered: jax.stages.Lowered) -> jax.stages.Compiled | None:
    """The compiled program; None where its compiler says that a device has not the memory for it."""
    try:
        return lowered.compile()
    except Exception as error:  # compilers raise their own, which JAX does not export
        if _SHORT.search(str(error)):
            return None
        raise


@contextlib.contextmanager
def explained(advice: Callable[[], str]) -> Iterator[None]:
    """Turns what the runtime raises when memory ends into one line with this advice.

    Raises:
      InputError: memory ended.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, MemoryError) or _SHORT.search(str(error)):
            raise InputError(f"the memory of a device has ended; {advice()}") from error
        raise
