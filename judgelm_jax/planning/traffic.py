"""Bytes that instructions of a compiled program move between the memory of the device and its cores. Imports no JAX."""

import collections

from judgelm_jax.planning.hlo import Computation, Instruction, Module, all_bytes, root

_TAKES_A_PART = ("dynamic-slice", "slice", "gather")
_WRITES_A_PART = ("dynamic-update-slice", "scatter")
_SMALL = 4096  # bytes of which it does not matter how many are read


def bytes_of(module: Module, instruction: Instruction, computation: Computation) -> float:
    """Bytes of one run: what is read and what is written, where only a part is, that part."""
    written = all_bytes(instruction.arrays)
    op = instruction.op
    if op in ("dynamic-slice", "slice", "gather"):
        return 2 * written
    if op in ("slice-start", "dynamic-slice-start"):
        return 2 * all_bytes(instruction.arrays[-1:])
    if op in _WRITES_A_PART:
        part = computation.get(instruction.operands[1 if op == "dynamic-update-slice" else -1])
        return 0.0 if part is None else (2 if op == "dynamic-update-slice" else 3) * all_bytes(part.arrays)
    read = 0.0
    for index, name in enumerate(instruction.operands):
        if name not in computation:
            continue
        whole = all_bytes(computation[name].arrays)
        if op == "fusion" and whole > _SMALL:
            whole = _read_by(module, instruction.called("calls") or "", index, whole)
        read += whole
    if op == "copy-start":
        return read + all_bytes(instruction.arrays[:1])
    if op == "fusion" and written > _SMALL:
        written = _written_by(module, instruction.called("calls") or "", instruction)
    return read + written


def _read_by(module: Module, name: str, index: int, whole: float) -> float:
    """Bytes of parameter `index` that a fused computation reads."""
    computation = module.computations[name]
    parameter = next(
        (one for one in computation.values() if one.op == "parameter" and one.arguments.strip() == str(index)), None
    )
    if parameter is None:
        return whole
    users: dict[str, list[tuple[Instruction, int]]] = collections.defaultdict(list)
    for user in computation.values():
        for place, operand in enumerate(user.operands):
            users[operand].append((user, place))

    def read(instruction: Instruction) -> float:
        if instruction.is_root and not users[instruction.name]:
            return whole
        total = 0.0
        for user, place in users[instruction.name]:
            if user.op in ("bitcast", "reshape"):
                total += read(user)
            elif user.op in _TAKES_A_PART and place == 0:
                total += all_bytes(user.arrays, off_chip=False)
            elif user.op in _WRITES_A_PART and place == 0:
                total += 0.0  # what is written over in place is not read
            elif user.op == "fusion":
                total += _read_by(module, user.called("calls") or "", place, whole)
            elif user.op != "tuple":
                total += whole
        return min(total, whole)

    return read(parameter)


def _written_by(module: Module, name: str, fusion: Instruction) -> float:
    """Bytes that a fused computation writes."""
    if len(fusion.arrays) == 1 and fusion.arrays[0].space:
        return 0.0
    computation = module.computations[name]

    def written(instruction: Instruction, inside: Computation) -> float:
        if instruction.op == "bitcast" and instruction.operands and instruction.operands[0] in inside:
            return written(inside[instruction.operands[0]], inside)
        if instruction.op in _WRITES_A_PART:
            part = inside.get(instruction.operands[1 if instruction.op == "dynamic-update-slice" else -1])
            return 0.0 if part is None else all_bytes(part.arrays, off_chip=False)
        if instruction.op == "tuple":
            return sum(written(inside[operand], inside) for operand in instruction.operands if operand in inside)
        if instruction.op == "fusion":
            return _written_by(module, instruction.called("calls") or "", instruction)
        return 0.0 if instruction.op == "parameter" else all_bytes(instruction.arrays)

    return written(root(computation), computation)
