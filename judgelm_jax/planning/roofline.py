"""How long a program would take at best: each instruction by what bounds it. Imports no JAX.

The efficiencies below are those that large products and copies of these devices are known to reach; no device was measured.
"""

import collections
import dataclasses
from collections.abc import Sequence

from judgelm_jax.devices.hardware import Hardware
from judgelm_jax.planning.flops import is_kernel
from judgelm_jax.planning.work import Work

# Of the peak, what matrix products reach; the same of the memory's bandwidth.
PRODUCTS = {"a100-40gb": 0.80, "a100-80gb": 0.80, "h100": 0.70, "h200": 0.70, "v5e": 0.85, "v5p": 0.85, "v6e": 0.85, "cpu": 1.0}
MEMORY = 0.85
_CLOCK = {"v5e": 1.5e9, "v5p": 1.75e9, "v6e": 1.75e9}  # cycles/s of a TPU's core

ASSUMPTIONS = {
    "gpu": "each instruction takes the longer of its FLOPs at {products:.2f} of the peak and its bytes at {memory:.2f} of "
    "the bandwidth; collectives are added, not overlapped; products have the compiler's default tiles, without autotuning",
    "tpu": "each instruction takes the cycles that the compiler estimates, or else the longer of its FLOPs at {products:.2f} "
    "of the peak and its bytes at {memory:.2f} of the bandwidth (attention kernels among them, so this is optimistic); "
    "collectives are overlapped with the rest",
    "cpu": "peak and bandwidth of a made-up device: only the memory means something",
}


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Of one run on one device. `collectives`: kind → bytes; `bound`: `compute`, `memory` or `network`."""

    flops: float
    bytes: float
    collectives: dict[str, float]
    seconds: float
    bound: str


def roofline(done: Sequence[Work], hardware: Hardware) -> Roofline:
    """The time of a program by what its instructions do."""
    spent: dict[str, float] = collections.defaultdict(float)
    collectives: dict[str, float] = collections.defaultdict(float)
    for one in done:
        if one.collective is not None:
            collectives[one.collective] += one.times * one.moved
            spent["network"] += one.times * _network_seconds(one, hardware)
        if one.collective is None or one.flops:
            bound, seconds = _core_seconds(one, hardware)
            spent[bound] += one.times * seconds
    cores = spent["compute"] + spent["memory"]
    seconds = max(cores, spent["network"]) if hardware.platform == "tpu" else cores + spent["network"]
    return Roofline(
        flops=sum(one.times * one.flops for one in done),
        bytes=sum(one.times * one.bytes for one in done if one.collective is None or one.flops),
        collectives=dict(collectives),
        seconds=seconds,
        bound=max(("compute", "memory", "network"), key=lambda name: spent[name]),
    )


def assumptions(hardware: Hardware) -> str:
    """What the times of a roofline take for granted."""
    return ASSUMPTIONS[hardware.platform].format(products=PRODUCTS[hardware.name], memory=MEMORY)


def _core_seconds(one: Work, hardware: Hardware) -> tuple[str, float]:
    """What bounds an instruction, `compute` or `memory`, and its seconds."""
    compute = one.flops / (hardware.flops * PRODUCTS[hardware.name])
    memory = one.bytes / (hardware.bandwidth * MEMORY)
    bound, seconds = ("compute", compute) if compute >= memory else ("memory", memory)
    if one.cycles is not None and hardware.name in _CLOCK and not is_kernel(one.instruction):
        seconds = one.cycles / _CLOCK[hardware.name]
    return bound, seconds


def _network_seconds(one: Work, hardware: Hardware) -> float:
    """A ring among the devices of a host, and one among hosts, each device with a port of its own; the longer of the two."""
    size = max(2, len(one.group))
    passes = 2 if one.collective == "all-reduce" else 1
    hosts = len({device // hardware.per_host for device in one.group})
    inside = one.moved * (size - 1) / size / hardware.link
    across = 0.0
    if hosts > 1:
        across = one.moved * (hosts - 1) / hosts / (size / hosts) / hardware.network
    return passes * max(inside, across)
