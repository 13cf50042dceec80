"""What a program needs and does on given hardware: `plan.json`."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jax.sharding import Mesh

from judgelm_jax.devices.hardware import GIB
from judgelm_jax.devices.mesh_config import MESH_AXES, MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.planning import programs
from judgelm_jax.planning.compiling import compile_for, versions
from judgelm_jax.planning.hlo import parse
from judgelm_jax.planning.programs import Planned
from judgelm_jax.planning.roofline import assumptions, roofline
from judgelm_jax.planning.topology import Topology, devices
from judgelm_jax.planning.work import work
from judgelm_jax.tokens.tokenization import Tokenizer
from judgelm_jax.training_config import TrainConfig

Plan = dict[str, Any]  # the fields of `plan.json`


@dataclasses.dataclass(frozen=True)
class Question:
    """What is planned: a training, or a judge in one mode.

    `training`: its config; else `judge` holds the settings. `targets`: of each row of training; `prompt_tokens`: of each prompt
    of a judge; `tokenizer`: that of the model, where there is one.
    """

    model: ModelConfig
    topology: Topology
    mesh: str
    training: TrainConfig | None = None
    judge: JudgeConfig | None = None
    targets: int = 512
    prompt_tokens: int = 800
    tokenizer: Tokenizer | None = None

    @property
    def program(self) -> str:
        """The name of the program, as the flag has it."""
        return "train" if self.judge is None else self.judge.mode


def plan(question: Question) -> Plan:
    """Compiles the programs of a question, in the first size that fits, and says what they need and do.

    Raises:
      InputError: the mesh does not fit the devices or the model, or a setting is refused.
    """
    topology = question.topology
    mesh = make_mesh(MeshConfig.parse(question.mesh), devices(topology))
    parts: list[Plan] = []
    for size in _sizes(question, mesh):
        parts = [_of(one, topology, mesh) for one in size]
        if all(part["fits"] for part in parts):
            break
    main = parts[0]
    largest = max(parts, key=lambda part: part["device_bytes"]["total"])
    return {
        "program": question.program,
        "topology": topology.name,
        "mesh": ",".join(f"{axis}:{mesh.shape[axis]}" for axis in MESH_AXES),
        "fits": all(part["fits"] for part in parts),
        "device_bytes": largest["device_bytes"],
        **{name: main[name] for name in main if name not in ("name", "fits", "device_bytes")},
        "programs": parts,
        "assumptions": _assumptions(question),
        "versions": versions(),
    }


def _sizes(question: Question, mesh: Mesh) -> Iterator[list[Planned]]:
    """The programs of a question, in the sizes in which a run tries them."""
    if question.training is not None:
        capacity = question.topology.hardware.capacity
        return programs.training(question.training, question.model, mesh, question.targets, capacity)
    assert question.judge is not None
    settings = question.judge
    if settings.device_memory is None:
        settings = dataclasses.replace(settings, device_memory=question.topology.hardware.capacity / GIB)
    return programs.judging(settings, question.model, mesh, question.prompt_tokens, question.tokenizer)


def _of(planned: Planned, topology: Topology, mesh: Mesh) -> Plan:
    """One program."""
    hardware = topology.hardware
    compiled = compile_for(planned.lower(), topology)
    total = compiled.memory
    rest = max(0.0, total - sum(planned.parts.values()))
    result: Plan = {
        "name": planned.name,
        "fits": bool(compiled.text) and total <= hardware.capacity,
        "device_bytes": {**planned.parts, "temporaries": rest, "total": total, "capacity": hardware.capacity},
        "shape": planned.shape,
        "tokens": planned.tokens,
        **dict.fromkeys(("flops", "bytes_accessed", "collectives", "bound", "seconds", "share_of_peak", "tokens_per_second")),
    }
    if not compiled.text:
        return result  # refused: there is no program whose work could be counted
    done = roofline(work(parse(compiled.text), planned.unknown_trips), hardware)
    result |= {
        "flops": done.flops,
        "bytes_accessed": done.bytes,
        "collectives": done.collectives,
        "bound": done.bound,
        "seconds": done.seconds,
        "share_of_peak": planned.ideal_flops / (mesh.size * hardware.flops * done.seconds),
        "tokens_per_second": planned.tokens / done.seconds,
        "flops_over_ideal": done.flops * mesh.size / planned.ideal_flops,
    }
    if planned.least_bytes:
        result["over_memory_roofline"] = done.seconds * hardware.bandwidth / planned.least_bytes
    return result


def _assumptions(question: Question) -> list[str]:
    sizes = (
        f"rows are full and have {question.targets} targets each"
        if question.judge is None
        else f"prompts have {question.prompt_tokens} tokens and share no answers"
    )
    return [
        "memory is the compiler's; activations and cache by their shapes, temporaries the rest",
        assumptions(question.topology.hardware),
        sizes,
        "share_of_peak is what the mathematics needs (attention counted causally, nothing computed again) over time and peak",
    ]


def lines(result: Mapping[str, Any]) -> list[str]:
    """A plan as a few lines to read."""
    memory = result["device_bytes"]
    parts = ", ".join(
        f"{name} {memory[name] / GIB:.1f}" for name in ("parameters", "optimizer", "activations", "cache", "temporaries")
    )
    spare = (memory["capacity"] - memory["total"]) / GIB
    verdict = f"fits, {spare:.1f} GiB are free" if result["fits"] else f"does not fit: {-spare:.1f} GiB too much"
    shape = ", ".join(f"{name} {value}" for name, value in result["shape"].items())
    text = [
        f"{result['program']:<10} on {result['topology']}, mesh {result['mesh']}; {shape}",
        f"memory     {memory['total'] / GIB:.1f} of {memory['capacity'] / GIB:.1f} GiB a device: {verdict}",
        f"           GiB: {parts}",
    ]
    for one in result["programs"]:
        if one["seconds"] is None:
            continue
        moved = ", ".join(f"{kind} {size / 1e9:.2f} GB" for kind, size in sorted(one["collectives"].items())) or "none"
        over = one.get("over_memory_roofline")
        text += [
            f"{one['name']:<10} {one['flops'] / 1e12:.2f} TFLOP and {one['bytes_accessed'] / 1e9:.1f} GB a device; "
            f"collectives: {moved}",
            f"           at best {one['seconds']:.4f} s ({one['bound']}), {one['tokens_per_second']:,.0f} tokens/s, "
            f"{100 * one['share_of_peak']:.1f} % of the peak; FLOPs {one['flops_over_ideal']:.2f}× of what is needed"
            + ("" if over is None else f"; {over:.2f}× the memory roofline"),
        ]
    return text + [f"assumed    {line}" for line in result["assumptions"]]
