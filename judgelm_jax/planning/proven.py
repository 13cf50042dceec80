"""Configurations that the compilers say fit, as a table: `judgelm-plan --proven=FILE.md` makes it anew."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from judgelm_jax.devices.hardware import GIB
from judgelm_jax.errors import InputError
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.planning.models import SHAPES, model_of
from judgelm_jax.planning.plan import Plan, Question, plan
from judgelm_jax.planning.topology import Topology, parse
from judgelm_jax.records.output_files import write_atomically
from judgelm_jax.training_config import TrainConfig

# Model (int8: with matrices in 8 bits), program, topology, mesh.
ROWS = (
    ("7b", "train", "a100-80gb:8", "fsdp:-1"),
    ("7b", "train", "h100:8", "fsdp:-1"),
    ("7b", "train", "v5e:4x4", "fsdp:-1"),
    ("7b", "train", "v5p:2x2x2", "fsdp:-1"),
    ("13b", "train", "a100-80gb:8", "fsdp:-1"),
    ("13b", "train", "h100:8", "fsdp:-1"),
    ("13b", "train", "v5e:4x8", "fsdp:-1"),
    ("13b", "train", "v5p:2x2x2", "fsdp:-1"),
    ("33b", "train", "a100-80gb:8", "fsdp:-1"),
    ("33b", "train", "h100:8", "fsdp:-1"),
    ("33b", "train", "v5e:8x8", "fsdp:-1"),
    ("33b", "train", "v5p:2x2x2", "fsdp:-1"),
    ("7b", "scores", "a100-40gb:1", "data:-1"),
    ("7b", "scores", "a100-80gb:1", "data:-1"),
    ("7b", "scores", "h100:1", "data:-1"),
    ("7b", "scores", "v5e:1", "data:-1"),
    ("7b", "scores", "v5e:2x2", "data:2,tensor:2"),
    ("7b", "explain", "a100-40gb:1", "data:-1"),
    ("7b", "explain", "h100:1", "data:-1"),
    ("7b", "explain", "v5e:1", "data:-1"),
    ("33b", "scores", "a100-80gb:1", "data:-1"),
    ("33b", "scores", "h100:1", "data:-1"),
    ("33b", "scores", "v5e:2x4", "fsdp:2,tensor:4"),
    ("7b int8", "scores", "v5e:1", "data:-1"),
    ("7b int8", "explain", "v5e:1", "data:-1"),
    ("33b int8", "scores", "a100-40gb:1", "data:-1"),
    ("33b int8", "scores", "v5e:2x4", "data:2,tensor:4"),
)

_HEAD = (
    "| model | program | devices | mesh | sizes | GiB a device | fits | share of the peak | tokens/s | bound |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
)


def question_of(model: str, program: str, topology: Topology, mesh: str) -> Question:
    """What a row asks."""
    shape = SHAPES[model.removesuffix(" int8")]
    training = TrainConfig(model=shape) if program == "train" else None
    judge = None if program == "train" else JudgeConfig(mode=program)
    return Question(dataclasses.replace(model_of(shape), int8=model.endswith(" int8")), topology, mesh, training, judge)


def regenerate(file: Path, only: str, say: Callable[[str], None]) -> None:
    """Plans the rows in whose text `only` is found and writes the table; the other rows stay as they are in the file.

    Raises:
      InputError: the file exists and is no such table.
    """
    kept = _read(file)
    for model, program, topology, mesh in ROWS:
        begin = f"| {model} | {program} | {topology} | {mesh} |"
        if only not in begin:
            continue
        found = plan(question_of(model, program, parse(topology), mesh))
        kept[begin] = f"{begin} {_cells(found)}"
        say(kept[begin])
        _write(file, kept, found)  # a row is not lost when the next one fails


def _cells(found: Plan) -> str:
    memory, shape = found["device_bytes"], found["shape"]
    names = ("micro_batch", "remat", "row_length", "slots", "attention")
    sizes = ", ".join(f"{name} {shape[name]}" for name in names if name in shape)
    share = "" if found["share_of_peak"] is None else f"{100 * found['share_of_peak']:.0f} %"
    if found.get("over_memory_roofline"):
        share += f" ({found['over_memory_roofline']:.2f}× the memory roofline)"
    rate = "" if found["tokens_per_second"] is None else f"{found['tokens_per_second']:,.0f}"
    total = f"{memory['total'] / GIB:.1f} of {memory['capacity'] / GIB:.1f}"
    return f"{sizes} | {total} | {'yes' if found['fits'] else 'no'} | {share} | {rate} | {found['bound'] or ''} |"


def _read(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    if _HEAD[0] not in lines:
        raise InputError(f"{file}: is no table of proven configurations; name another file")
    begins = [f"| {' | '.join(row)} |" for row in ROWS]
    return {begin: line for begin in begins for line in lines if line.startswith(begin)}


def _write(file: Path, rows: dict[str, str], found: Plan) -> None:
    ordered = [rows[begin] for row in ROWS if (begin := f"| {' | '.join(row)} |") in rows]
    text = [
        "# Proven configurations",
        "",
        "What the compilers for this hardware say of the real programs; nothing was run. Made by",
        "`judgelm-plan --proven=judgelm_jax/planning/PROVEN.md`. Training: 128 rows of 2,048 tokens with 512 targets each,",
        "float32 masters and moments. Judging: bfloat16, prompts of 800 tokens, explanations of at most 512. Times are",
        "rooflines ([what they are worth](README.md)).",
        "",
        *_HEAD,
        *ordered,
        "",
        f"Versions: {json.dumps(found['versions'])}.",
    ]
    with write_atomically(file) as table:
        table.write("\n".join(text) + "\n")
