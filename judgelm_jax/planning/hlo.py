"""The text of a compiled program, as XLA prints it: computations made of instructions. Imports no JAX."""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32, "s64": 64,
    "u64": 64, "f8e4m3fn": 8, "f8e5m2": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "token": 0,
}  # fmt: skip
_ARRAY = re.compile(r"\b([a-z]+[0-9]*(?:e\dm\d\w*)?)\[([0-9,]*)\](\{[^}]*\})?")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) (?:\(.*\) -> .*)?\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")


@dataclasses.dataclass(frozen=True)
class Array:
    """One array of an instruction's result. `space`: the memory that it lies in; 0 is that of the device."""

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def bytes(self) -> float:
        return math.prod(self.dims) * _BITS[self.dtype] / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """`arguments`: the text in its brackets; `attributes`: what follows them."""

    name: str
    op: str
    arrays: tuple[Array, ...]
    operands: tuple[str, ...]
    arguments: str
    attributes: str
    is_root: bool

    def called(self, key: str) -> str | None:
        """The computation that an attribute names, as `body` or `calls`."""
        found = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        return None if found is None else found[1]

    @property
    def number(self) -> int | None:
        """The value of an integer constant; else None."""
        return int(self.arguments) if self.op == "constant" and re.fullmatch(r"-?\d+", self.arguments.strip()) else None

    @property
    def source(self) -> str:
        """The path of names in the Python program."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return "" if found is None else found[1]


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Module:
    """The computations of a program by name, and the name of the first."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Module:
    """Reads the text of an optimized program.

    Raises:
      ValueError: there is no program in it.
    """
    # Metadata of TPU kernels has line breaks of its own.
    text = re.sub(r"kernel_metadata=\{\n[^\n]*\n\}\}", "kernel_metadata={}}", text)
    computations: dict[str, Computation] = {}
    entry = ""
    current: Computation | None = None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header is not None and not line.startswith("HloModule"):
            current = computations[header[2]] = {}
            entry = header[2] if header[1] else entry
        elif line.rstrip() == "}":
            current = None
        elif current is not None:
            found = _LINE.match(line)
            instruction = None if found is None else _instruction(found[2], found[3], bool(found[1]))
            if instruction is not None:
                current[instruction.name] = instruction
    if not entry:
        raise ValueError("no compiled program in the text")
    return Module(computations, entry)


def root(computation: Computation) -> Instruction:
    """The instruction whose result is that of the computation."""
    return next(instruction for instruction in computation.values() if instruction.is_root)


def all_bytes(arrays: tuple[Array, ...], off_chip: bool = True) -> float:
    """Bytes of arrays; `off_chip`: only of those in the device's memory."""
    return sum(array.bytes for array in arrays if not (off_chip and array.space))


def _instruction(name: str, rest: str, is_root: bool) -> Instruction | None:
    kind, rest = _split_type(rest)
    found = re.match(r"([\w\-]+)\((.*)$", rest)
    if found is None:
        return None
    end = _closing(found[2])
    arguments = found[2][:end]
    operands = tuple(re.findall(r"%([\w.\-]+)", re.sub(r"/\*.*?\*/", "", arguments)))
    return Instruction(name, found[1], tuple(_arrays(kind)), operands, arguments, found[2][end + 1 :], is_root)


def _split_type(text: str) -> tuple[str, str]:
    """The type of a result and what follows it."""
    if text.startswith("("):
        end = _closing(text[1:]) + 2
        return text[:end], text[end:].lstrip()
    found = re.match(r"[a-z0-9]+\[[^\]]*\](\{[^}]*\})?", text)
    return ("", text) if found is None else (found[0], text[found.end() :].lstrip())


def _closing(text: str) -> int:
    """The index of the bracket that closes one before the text."""
    depth = 1
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return index
    return len(text)


def _arrays(kind: str) -> Iterator[Array]:
    for dtype, dims, layout in _ARRAY.findall(kind):
        if dtype in _BITS:
            space = re.search(r"S\((\d+)\)", layout)
            yield Array(dtype, tuple(int(size) for size in dims.split(",") if size), int(space[1]) if space else 0)
