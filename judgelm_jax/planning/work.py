"""What a compiled program does on one device, instruction by instruction, loops multiplied out. Imports no JAX."""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from judgelm_jax.planning.flops import flops_of
from judgelm_jax.planning.hlo import Computation, Instruction, Module, all_bytes
from judgelm_jax.planning.loops import trips
from judgelm_jax.planning.traffic import bytes_of

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
_FREE = (
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id", "opt-barrier",
    "add-dependency",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Work:
    """An instruction that runs `times` times.

    Of one run: `flops`, `bytes` through the device's memory, `cycles` where the compiler estimates them. `collective`: its
    kind, which moves `moved` bytes among the devices `group`.
    """

    instruction: Instruction
    times: int
    flops: float
    bytes: float
    cycles: int | None = None
    collective: str | None = None
    moved: float = 0.0
    group: tuple[int, ...] = ()


def work(module: Module, unknown_trips: int) -> list[Work]:
    """Everything a program does; loops whose end depends on data run `unknown_trips` times, and of branches the dearest."""
    return list(_walk(module, module.computations[module.entry], 1, unknown_trips))


def _walk(module: Module, computation: Computation, times: int, unknown: int) -> Iterator[Work]:
    for instruction in computation.values():
        op = instruction.op
        if op in _FREE or op.endswith(("-done", "-update")):
            continue
        if op == "while":
            body = module.computations[instruction.called("body") or ""]
            yield from _walk(module, body, times * trips(module, instruction, computation, unknown), unknown)
        elif op == "conditional":
            branches = (list(_walk(module, module.computations[name], times, unknown)) for name in _branches(instruction))
            yield from max(branches, key=lambda branch: sum(one.flops + one.bytes for one in branch))
        elif op == "call":
            yield from _walk(module, module.computations[instruction.called("to_apply") or ""], times, unknown)
        elif op == "async-start":
            called = instruction.called("calls")
            if called is not None:
                yield from _walk(module, module.computations[called], times, unknown)
        else:
            yield _of(module, instruction, computation, times)


def _branches(instruction: Instruction) -> list[str]:
    listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
    if listed is not None:
        return [name.strip().lstrip("%") for name in listed[1].split(",")]
    return [instruction.called(key) or "" for key in ("true_computation", "false_computation")]


def _of(module: Module, instruction: Instruction, computation: Computation, times: int) -> Work:
    estimated = re.search(r'"estimated_cycles":"(\d+)"', instruction.attributes)
    cycles = int(estimated[1]) if estimated else None
    kind = instruction.op.removesuffix("-start")
    if kind in COLLECTIVES:
        moved = _moved(instruction, computation)
        return Work(instruction, times, 0.0, 2 * moved, cycles, kind, moved, _group(instruction.attributes))
    flops, through = flops_of(module, instruction, computation), bytes_of(module, instruction, computation)
    if instruction.op == "fusion":
        inside = module.computations[instruction.called("calls") or ""]
        fused = next((one for one in inside.values() if one.op in COLLECTIVES), None)
        if fused is not None:
            moved = _moved(fused, inside)
            return Work(instruction, times, flops, through, cycles, fused.op, moved, _group(fused.attributes))
    return Work(instruction, times, flops, through, cycles)


def _moved(instruction: Instruction, computation: Computation) -> float:
    """The larger of what goes into a collective and what comes out, bytes."""
    taken = sum(all_bytes(computation[name].arrays, False) for name in instruction.operands if name in computation)
    given = all_bytes(instruction.arrays, False)
    if instruction.op in ("all-gather-start", "collective-permute-start"):
        given -= taken  # its result holds the operand, too
    return max(taken, given)


def _group(attributes: str) -> tuple[int, ...]:
    """The devices of the first of the groups among which a collective moves."""
    found = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes)
    if found is not None:
        dims = [int(size) for size in found[3].split(",")]
        ids = np.arange(int(np.prod(dims))).reshape(dims)
        if found[4]:
            ids = ids.transpose([int(axis) for axis in found[4].split(",")])
        return tuple(int(number) for number in ids.reshape(int(found[1]), int(found[2]))[0])
    found = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes)
    if found is not None:
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", found[1])}
        names = list(sizes)
        ids = np.arange(int(np.prod(list(sizes.values())))).reshape(list(sizes.values()))
        used = re.findall(r"'(\w+)'", found[2])
        index = tuple(slice(None) if name in used else 0 for name in names)
        return tuple(int(number) for number in np.asarray(ids[index]).reshape(-1))
    found = re.search(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}", attributes)
    return () if found is None else tuple(int(number) for number in found[1].split(","))
