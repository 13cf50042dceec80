"""How often the loops of a compiled program run. Imports no JAX."""

import re

from judgelm_jax.planning.hlo import Computation, Instruction, Module, root


def trips(module: Module, loop: Instruction, around: Computation, unknown: int) -> int:
    """Of a `while` in the computation `around`; `unknown` where only the data say it.

    Compilers for CPUs and GPUs write the number down. That of TPUs leaves it in the condition, `i < bound`, where the bound
    may have been carried in by the loop's tuple and the step may be more than one, since loops are unrolled.
    """
    known = re.search(r'known_trip_count"?[:=]\s*\{\s*"?n"?[:=]\s*"?(\d+)', loop.attributes)
    if known is not None:
        return int(known[1])
    condition = module.computations[loop.called("condition") or ""]
    inside = list(_with_fusions(module, condition))
    compared = [one for one in inside if one.op == "compare" and "direction=LT" in one.attributes]
    if len(compared) != 1 or len(inside) > 8 or any(one.op in ("reduce", "and", "or") for one in inside):
        return unknown
    bounds = [one.number for one in inside if one.number is not None]
    bound = max(bounds) if bounds else _carried(loop, condition, compared[0], around)
    if bound is None or bound < 1:
        return unknown
    return -(-bound // _step(module, loop, condition, compared[0]))


def _with_fusions(module: Module, computation: Computation):
    for instruction in computation.values():
        yield instruction
        if instruction.op == "fusion":
            yield from _with_fusions(module, module.computations[instruction.called("calls") or ""])


def _index(instruction: Instruction | None) -> int | None:
    """Which element of a tuple it takes."""
    if instruction is None or instruction.op != "get-tuple-element":
        return None
    found = re.search(r"index=(\d+)", instruction.attributes)
    return None if found is None else int(found[1])


def _carried(loop: Instruction, condition: Computation, compared: Instruction, around: Computation) -> int | None:
    """The bound, where it is an element of the tuple with which the loop begins."""
    begin = around.get(loop.operands[0])
    for operand in compared.operands:
        index = _index(condition.get(operand))
        if index is None or begin is None or begin.op != "tuple":
            continue
        value = around.get(begin.operands[index])
        while value is not None and value.op in ("copy", "bitcast") and value.operands:
            value = around.get(value.operands[0])
        if value is not None and value.number is not None and value.number > 1:
            return value.number
    return None


def _step(module: Module, loop: Instruction, condition: Computation, compared: Instruction) -> int:
    """By how much the counter grows in one round."""
    body = module.computations[loop.called("body") or ""]
    last = root(body)
    counter = _index(condition.get(compared.operands[0])) if compared.operands else None
    if last.op != "tuple" or counter is None or counter >= len(last.operands):
        return 1
    value, total = body.get(last.operands[counter]), 0
    while value is not None and value.operands:
        if value.op == "add":
            operands = [body[name] for name in value.operands if name in body]
            added = next((one.number for one in operands if one.number is not None), None)
            if added is None:
                break
            total += added
            value = next((one for one in operands if one.number is None), None)
        elif value.op == "fusion" and len(value.operands) <= 2:
            inner = module.computations[value.called("calls") or ""]
            numbers = [one.number for one in inner.values() if one.number is not None]
            if root(inner).op != "add" or len(numbers) != 1:
                break
            total += numbers[0]
            value = body.get(value.operands[0])
        elif value.op in ("copy", "bitcast", "copy-done", "copy-start"):
            value = body.get(value.operands[0])
        else:
            break
    return total or 1
