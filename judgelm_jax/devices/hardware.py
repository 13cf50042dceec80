"""What accelerators can do, by the makers' data sheets. Imports no JAX."""

import dataclasses

GIB = 2**30
# Of a GPU's memory: the rest is for its context and for NCCL (`XLA_PYTHON_CLIENT_MEM_FRACTION=0.92`).
_GPU_SHARE = 0.92


@dataclasses.dataclass(frozen=True)
class Hardware:
    """One device.

    `kind`: what JAX calls it, or how that begins. `flops`: FLOP/s, dense, in bfloat16. `bandwidth`: of its memory, bytes/s.
    `memory`: nominal, `capacity`: what programs may use, bytes. `link`: bytes/s in each direction to the devices of its host
    (of its slice, for a TPU), `network`: to those of other hosts; `per_host`: devices of one host.
    """

    name: str
    platform: str
    kind: str
    flops: float
    bandwidth: float
    memory: float
    capacity: float
    link: float
    network: float
    per_host: int


def _gpu(name: str, kind: str, tflops: float, bandwidth: float, gibibytes: float, link: float, network: float) -> Hardware:
    memory = gibibytes * GIB
    return Hardware(
        name, "gpu", kind, tflops * 1e12, bandwidth * 1e9, memory, _GPU_SHARE * memory, link * 1e9, network * 1e9, 8
    )


def _tpu(name: str, kind: str, tflops: float, bandwidth: float, gibibytes: float, usable: float, link: float) -> Hardware:
    return Hardware(
        name, "tpu", kind, tflops * 1e12, bandwidth * 1e9, gibibytes * GIB, usable * GIB, link * 1e9, link * 1e9, 256
    )


# Links: NVLink 3 and 4; one InfiniBand port a GPU (HDR, NDR); ICI of TPUs.
HARDWARE = (
    _gpu("a100-40gb", "NVIDIA A100-SXM4-40GB", 312, 1555, 40, 300, 25),
    _gpu("a100-80gb", "NVIDIA A100", 312, 2039, 80, 300, 25),
    _gpu("h100", "NVIDIA H100", 989, 3350, 80, 450, 50),
    _gpu("h200", "NVIDIA H200", 989, 4800, 139, 450, 50),
    _tpu("v4", "TPU v4", 275, 1228, 32, 31.75, 150),
    _tpu("v5e", "TPU v5 lite", 197, 819, 16, 15.75, 100),
    _tpu("v5p", "TPU v5", 459, 2765, 95, 95.0, 300),
    _tpu("v6e", "TPU v6 lite", 918, 1640, 32, 31.25, 200),
)


def of_kind(kind: str) -> Hardware | None:
    """The device that JAX calls `kind`; None where it is none of those."""
    return next((one for one in HARDWARE if kind.startswith(one.kind)), None)
