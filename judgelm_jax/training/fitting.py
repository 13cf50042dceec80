"""The micro-batch and what is kept for the backward pass: as much as fits the memory of a device."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from judgelm_jax.devices import memory
from judgelm_jax.errors import InputError
from judgelm_jax.training.programs import lower_step, state_shapes
from judgelm_jax.training.step import Program, State
from judgelm_jax.training_config import TrainConfig

# What a backward pass needs of one layer and token at once, in widths of the residual stream and of the MLP; of each layer that
# keeps its matrix products, what these are. As compilers say of models of 7 to 33 billion parameters.
_WIDTHS_AT_ONCE = 8
_TOKENS_ENOUGH = 2048  # of a micro-batch on a device, to fill it: below, keeping products gains less than it costs


def variants(program: Program, config: TrainConfig, room: float | None) -> Iterator[Program]:
    """The ways to compute a step that the config leaves open, the fastest first.

    `room`: bytes on a device beside the state; None: nobody knows, and there is one way. The estimate only saves compilations.
    """
    devices = 1
    if program.placement.mesh is not None:
        devices = program.placement.mesh.shape["data"] * program.placement.mesh.shape["fsdp"]
    own = config.training.batch // devices
    micros = [size for size in range(own, 0, -1) if own % size == 0]
    if config.training.micro_batch or room is None:
        micros = [own // program.accumulation]
    remats = ["dots", "full"] if config.computation.remat == "auto" else [config.computation.remat]
    if room is None and len(remats) > 1:
        remats = ["full"]
    masters = 0 if room is None else memory.bytes_on_device(state_shapes(program)["params"])
    for remat in remats:
        for micro in micros:
            last = (remat, micro) == (remats[-1], micros[-1])
            if room is not None and not last and _estimate(program, config, masters, micro, remat) > room:
                continue
            if remat != remats[-1] and micro * config.data.length < min(_TOKENS_ENOUGH, own * config.data.length):
                continue
            yield dataclasses.replace(
                program,
                accumulation=own // micro,
                placement=dataclasses.replace(program.placement, remat=remat),
            )


def compiled_step(
    program: Program, config: TrainConfig, shapes: State, frozen: Any, targets: int, gibibytes: float | None
) -> jax.stages.Compiled:
    """The step of the first variant that fits, compiled.

    Args:
      shapes, frozen: as `lower_step` takes them; both lie on the devices.
      targets: the most of a row.
      gibibytes: of a device, instead of what it says of itself.

    Raises:
      InputError: none fits; says what would.
    """
    mesh = program.placement.mesh
    assert mesh is not None
    state = memory.bytes_on_device(shapes)
    room = memory.room_beside((shapes, frozen), mesh, gibibytes)
    needed = None
    for variant in variants(program, config, room):
        lowered = lower_step(variant, shapes, frozen, config.training.batch, config.data.length, targets)
        executable = memory.compile_or_none(lowered)
        if executable is None:
            continue
        needed = memory.beside_arguments(executable)
        if room is None or needed <= room:
            return executable
    raise InputError(_too_large(state, needed, room, mesh.size))


def _too_large(state: int, needed: float | None, room: float | None, devices: int) -> str:
    has = "the memory of a device does not suffice"
    if room is not None:
        has = f"{memory.shown(state + room)} of a device do not suffice"
    step = ""
    if needed is not None:
        step = f", the smallest step {memory.shown(needed)}; it fits in {memory.shown(state + needed)}"
    return (
        f"{has}: parameters and moments take {memory.shown(state)} on each of {devices}{step}; split them over more "
        "devices (--config.computation.mesh=fsdp:-1), or train adapters (--config.lora.rank=8)"
    )


def _estimate(program: Program, config: TrainConfig, masters: int, micro: int, remat: str) -> float:
    """Bytes on a device beside the state, about: gradients, weights that compute, activations of a micro-batch.

    `masters`: bytes of what is trained, of which there is a sum of gradients; unless this grows in place, also the gradient of
    a micro-batch and the weights in the dtype of the computation.
    """
    variant = dataclasses.replace(program, placement=dataclasses.replace(program.placement, remat=remat))
    trees = 1.0 if variant.sums_in_place else 2.5
    model, mesh = program.model, program.placement.mesh
    split = 1 if mesh is None else mesh.shape["tensor"]
    itemsize = jnp.dtype(program.dtype).itemsize
    heads = (model.num_heads + 2 * model.num_kv_heads) * model.head_dim
    inside = (heads + 2 * model.intermediate_size) // split + 2 * model.hidden_size
    kept = model.hidden_size + (inside if remat in ("dots", "none") else 0)
    at_once = _WIDTHS_AT_ONCE * (model.hidden_size + model.intermediate_size // split)
    return trees * masters + micro * config.data.length * itemsize * (model.num_layers * kept + at_once)
