"""FLOPs of the instructions of a compiled program: of matrix products, in whatever form a compiler leaves them. Imports no JAX.

Elementwise work is not counted: the memory bounds it.
"""

import math
import re

import numpy as np

from judgelm_jax.planning.hlo import Computation, Instruction, Module

_NOT_PAGED = re.compile(r'"is_paged_attention":\s*false')  # what cuDNN's kernels say of themselves
# Matrix products of an attention kernel that computes the forward pass, or a part of the backward pass.
_KERNEL_PRODUCTS = {"forward": 2, "dq": 3, "dkv": 4, "backward": 5}


def flops_of(module: Module, instruction: Instruction, computation: Computation) -> float:
    """FLOPs of one run of an instruction, with what it calls; loops aside."""
    if instruction.op == "dot":
        return _dot(instruction, computation)
    if instruction.op == "convolution":
        return _convolution(instruction, computation)
    if instruction.op in ("fusion", "call"):
        called = instruction.called("calls" if instruction.op == "fusion" else "to_apply")
        inside = module.computations[called or ""]
        return sum(flops_of(module, one, inside) for one in inside.values())
    if instruction.op == "custom-call":
        return _custom_call(instruction, computation)
    return 0.0


def target_of(instruction: Instruction) -> str:
    """The library function or kernel of a custom call."""
    found = re.search(r'custom_call_target="([^"]*)"', instruction.attributes)
    return "" if found is None else found[1]


def is_kernel(instruction: Instruction) -> bool:
    """Whether a custom call is a kernel of this package's attention backends, of which the compiler knows nothing."""
    target = target_of(instruction)
    return "fmha" in target or target in ("tpu_custom_call", "__gpu$xla.gpu.triton")


def _dot(instruction: Instruction, computation: Computation) -> float:
    left = computation[instruction.operands[0]].arrays[0].dims
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    contracted = math.prod(left[int(axis)] for axis in found[1].split(",") if axis) if found else 1
    return 2.0 * math.prod(instruction.arrays[0].dims) * contracted


def _convolution(instruction: Instruction, computation: Computation) -> float:
    """Compilers for TPUs write matrix products as convolutions, with windows over what is a batch or a transpose."""
    left, right = (computation[name].arrays[0].dims for name in instruction.operands[:2])
    out = instruction.arrays[0].dims
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    if labels is None:
        return 0.0
    of_left, of_right, of_out = labels.groups()
    spatial = [label for label in of_out if label.isdigit()]
    window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    settings = dict(re.findall(r"(\w+)=([\w\-]+)", window[1])) if window else {}

    def values(key: str) -> list[int]:
        return [int(x) for x in settings[key].split("x")] if key in settings else [1] * len(spatial)

    strides, left_dilation, right_dilation = values("stride"), values("lhs_dilate"), values("rhs_dilate")
    padding = [int(part.split("_")[0]) for part in settings["pad"].split("x")] if "pad" in settings else [0] * len(spatial)
    total = 2.0 * out[of_out.index("b")] * out[of_out.index("f")] * right[of_right.index("i")]
    for axis, label in enumerate(spatial):
        size, outputs, inputs = right[of_right.index(label)], out[of_out.index(label)], left[of_left.index(label)]
        at = np.arange(outputs)[:, None] * strides[axis] + np.arange(size)[None] * right_dilation[axis] - padding[axis]
        inside = (at >= 0) & (at <= (inputs - 1) * left_dilation[axis]) & (at % left_dilation[axis] == 0)
        total *= float(inside.sum())  # a window beyond the input multiplies nothing
    return total


def _custom_call(instruction: Instruction, computation: Computation) -> float:
    target = target_of(instruction)
    shapes = [computation[name].arrays[0].dims for name in instruction.operands if name in computation]
    if target.startswith("__cublas") or "matmul" in target.lower():
        found = re.search(r'"lhs_contracting_dimensions":\["?([\d",]*)"?\]', instruction.attributes)
        contracted = math.prod(shapes[0][int(axis)] for axis in re.findall(r"\d+", found[1])) if found else 0
        return 2.0 * math.prod(instruction.arrays[0].dims) * contracted
    if is_kernel(instruction):
        return _paged_attention(shapes) if _reads_pages(instruction) else _attention(instruction, shapes)
    return 0.0


def _reads_pages(instruction: Instruction) -> bool:
    """Whether a kernel is that of decoding."""
    return "paged" in instruction.source or "paged" in _NOT_PAGED.sub("", instruction.attributes)[:4000]


def _paged_attention(shapes: list[tuple[int, ...]]) -> float:
    """Each query [B, K, H/K, D] against all keys and values of its slot in pages [K, pages, slots of a page, D]."""
    queries, pages, *_ = [shape for shape in shapes if len(shape) == 4]
    heads = math.prod(queries[1:-1])
    return 4.0 * heads * math.prod(pages[1:])


def _attention(instruction: Instruction, shapes: list[tuple[int, ...]]) -> float:
    """Causal attention of as many queries as keys: batch × heads × length × length × width, half of it."""
    name = f"{instruction.source} {instruction.name} {target_of(instruction)}".lower()
    part = "forward"
    if any(word in name for word in ("backward", "bwd", "transpose")):
        part = "dkv" if "dkv" in name else "dq" if "dq" in name else "backward"
    for shape in shapes:
        if len(shape) == 4:
            batch, one, two, width = shape
            heads, length = min(one, two), max(one, two)
            return _KERNEL_PRODUCTS[part] * 2.0 * batch * heads * length * length * width / 2
    return 0.0
