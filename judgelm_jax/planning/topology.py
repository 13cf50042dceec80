"""Devices that are not at hand, as the compilers for them know them: `a100-80gb:8`, `v5e:2x2`; and CPUs, `cpu:8`."""

import dataclasses
import importlib.util
import math
import os
import re
import tempfile

from judgelm_jax.devices.hardware import GIB, HARDWARE, Hardware
from judgelm_jax.errors import InputError

# A device of a plan for CPUs is no real one: these numbers only make its shares and times comparable among themselves.
_CPU = Hardware("cpu", "cpu", "cpu", 1e11, 2e10, 16 * GIB, 16 * GIB, 1e10, 1e10, 256)
_NAMES = {one.name: one for one in (*HARDWARE, _CPU) if one.name != "v4"}
_MOST_GPUS = 64
# Slices by their number of chips, where no shape is named.
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBES = {1: "1x1x1", 4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}

# Of a streaming multiprocessor and of the chip: cores, FMA units, shared memory, of it for one block, L2, GHz, capability
_GPU_SHAPES = {
    "a100-40gb": (108, 64, 167936, 166912, 41943040, 1.41, "major: 8"),
    "a100-80gb": (108, 64, 167936, 166912, 41943040, 1.41, "major: 8"),
    "h100": (132, 128, 233472, 232448, 52428800, 1.98, "major: 9"),
    "h200": (132, 128, 233472, 232448, 52428800, 1.98, "major: 9"),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind; `shape` is that of a slice of TPUs (`2x2`), else empty."""

    hardware: Hardware
    count: int
    shape: str = ""

    @property
    def name(self) -> str:
        """As the flag `--topology` has it."""
        return f"{self.hardware.name}:{self.shape or self.count}"


def parse(text: str) -> Topology:
    """Reads the flag `--topology`.

    Raises:
      InputError: says what is known.
    """
    name, _, size = text.partition(":")
    hardware = _NAMES.get(name)
    if hardware is None or not re.fullmatch(r"[1-9][0-9]{0,3}(x[1-9][0-9]{0,2}){0,2}", size or "1", re.ASCII):
        raise InputError(
            f"--topology={text}: must be NAME:COUNT as a100-80gb:8, with a count from 1 on, or a TPU slice as v5e:2x2; names "
            f"are {', '.join(_NAMES)}"
        )
    sizes = [int(part) for part in (size or "1").split("x")]
    count = math.prod(sizes)
    if hardware.platform != "tpu":
        if len(sizes) > 1 or count > _MOST_GPUS or (hardware.platform == "gpu" and count > 8 and count % 8):
            raise InputError(f"--topology={text}: give a number from 1 to {_MOST_GPUS}; above 8, whole hosts of 8 devices")
        return Topology(hardware, count)
    known = _CUBES if hardware.name == "v5p" else _FLAT
    shape = size if len(sizes) > 1 else known.get(count, "")
    if not shape or len(shape.split("x")) != len(known[1].split("x")) or count > max(known):
        raise InputError(f"--topology={text}: give the shape of a slice, as {name}:{known[8]}")
    return Topology(hardware, count, shape)


def with_memory(topology: Topology, gibibytes: float | None) -> Topology:
    """The same devices, of whose memory programs may use this much; None: all that they have.

    Raises:
      InputError: it is no size.
    """
    if gibibytes is None:
        return topology
    if not 0 < gibibytes < math.inf:
        raise InputError(f"--device_memory={gibibytes}: must be a positive number of GiB")
    return dataclasses.replace(topology, hardware=dataclasses.replace(topology.hardware, capacity=gibibytes * GIB))


def start(topology: Topology) -> None:
    """Prepares this process for the compiler of `topology`; before JAX is used for anything.

    Raises:
      InputError: the compiler is not installed.
    """
    platform = topology.hardware.platform
    needed = {"gpu": ("jax_cuda13_plugin", "plan-gpu"), "tpu": ("libtpu", "plan-tpu")}.get(platform)
    if needed is not None and importlib.util.find_spec(needed[0]) is None:
        raise InputError(
            f"--topology={topology.name}: the compiler for it is not installed; pip install 'judgelm-jax[{needed[1]}]'"
        )
    os.environ["JAX_PLATFORMS"] = "cpu"  # compiling starts the default backend, which may be somebody's GPU
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    if platform == "tpu":
        # Some programs cannot be read back from their executable: then the text that the compiler writes here is read.
        own = tempfile.mkdtemp(prefix="judgelm-plan-")
        os.environ["JUDGELM_PLAN_DUMP"] = own
        flags = f"--xla_jf_dump_to={own} --xla_jf_dump_hlo_text=true --xla_jf_dump_llo_text=false"
        os.environ["LIBTPU_INIT_ARGS"] = f"{os.environ.get('LIBTPU_INIT_ARGS', '')} {flags}"
    import jax

    jax.config.update("jax_platforms", "cpu")
    if platform == "cpu":
        jax.config.update("jax_num_cpu_devices", topology.count)


def devices(topology: Topology) -> list:
    """The devices, of which only the compiler knows; those of a CPU topology exist. `start` was called.

    Raises:
      InputError: the compiler does not know such a slice.
    """
    import jax
    from jax.experimental import topologies

    if topology.hardware.platform == "cpu":
        found = jax.devices("cpu")
        if len(found) < topology.count:
            raise InputError(f"--topology={topology.name}: this process has {len(found)} CPU devices")
        return found[: topology.count]
    name = topology.hardware.name
    if topology.hardware.platform == "gpu":
        shape = f"1x{-(-topology.count // 8)}x{min(8, topology.count)}"
        described = topologies.get_topology_desc(
            platform="cuda", topology_name=name, topology=shape, target_config=_target_config(topology.hardware)
        )
        return list(described.devices)
    one = {"chips_per_host_bounds": (1, 1, 1)} if topology.count == 1 else {}
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=f"{name}:{topology.shape}", **one)
    except Exception as error:  # of the compiler, whatever it raises
        raise InputError(f"--topology={topology.name}: {str(error).splitlines()[0]}; choose another slice") from error
    return list(described.devices)


def _target_config(hardware: Hardware) -> str:
    """What XLA's compiler for GPUs knows of a device, in its text form."""
    cores, units, shared, for_block, cache, clock, capability = _GPU_SHAPES[hardware.name]
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: {shared}
  threads_per_core_limit: 2048 core_count: {cores} fpus_per_core: {units}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {int(hardware.bandwidth)} l2_cache_size: {cache} clock_rate_ghz: {clock}
  device_memory_size: {int(hardware.memory)}
  shared_memory_per_block_optin: {for_block} cuda_compute_capability {{ {capability} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: 13 }}
device_description_str: "{hardware.kind}"
"""
