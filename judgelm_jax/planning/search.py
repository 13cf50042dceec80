"""Meshes, micro-batches and rematerialization that a program could run with; the best that fits."""

import copy
import dataclasses
from collections.abc import Callable, Iterator

from judgelm_jax.errors import InputError
from judgelm_jax.planning.plan import Plan, Question, plan

_TENSOR = (1, 2, 4, 8)
_MICRO_BATCHES = (1, 2, 4, 8, 16)


def candidates(question: Question) -> Iterator[Question]:
    """Variants of a question: how the devices lie along the mesh; of a training also the micro-batch and what is kept."""
    count = question.topology.count
    for tensor in _TENSOR:
        if count % tensor or question.model.num_kv_heads % tensor or question.model.num_heads % tensor:
            continue
        rest = count // tensor
        if question.training is None:
            yield dataclasses.replace(question, mesh=f"data:{rest},fsdp:1,tensor:{tensor}")
            continue
        mesh = f"data:1,fsdp:{rest},tensor:{tensor}"
        own = question.training.training.batch // rest
        for micro in _MICRO_BATCHES:
            if question.training.training.batch % rest or micro > own or own % micro:
                continue
            for remat in ("dots", "full"):
                config = copy.deepcopy(question.training)
                config.training.micro_batch, config.computation.remat, config.computation.mesh = micro, remat, mesh
                yield dataclasses.replace(question, mesh=mesh, training=config)


def search(question: Question, say: Callable[[str], None]) -> Plan:
    """The plan with the highest share of the peak among those that fit.

    A larger micro-batch is not tried where a smaller one did not fit. `say` gets a line for each that was tried.

    Raises:
      InputError: nothing fits; names what came closest.
    """
    best: Plan | None = None
    closest: Plan | None = None
    refused: set[tuple[str, str]] = set()
    for one in candidates(question):
        remat = "" if one.training is None else one.training.computation.remat
        if (one.mesh, remat) in refused:
            continue
        try:
            found = plan(one)
        except InputError as error:
            say(f"{one.mesh}: {error}")
            continue
        memory = found["device_bytes"]
        share = f", {100 * found['share_of_peak']:.1f} % of the peak" if found["share_of_peak"] else ""
        what = found["mesh"] if one.training is None else f"{found['mesh']} micro {one.training.training.micro_batch} {remat}"
        say(f"{what}: {memory['total'] / 2**30:.1f} GiB, {'fits' if found['fits'] else 'does not fit'}{share}")
        if not found["fits"]:
            refused.add((one.mesh, remat))
            if closest is None or memory["total"] < closest["device_bytes"]["total"]:
                closest = found
        elif best is None or found["share_of_peak"] > best["share_of_peak"]:
            best = found
    if best is None:
        nearest = (
            ""
            if closest is None
            else f"; {closest['mesh']} comes closest with {closest['device_bytes']['total'] / 2**30:.1f} GiB"
        )
        raise InputError(f"--topology={question.topology.name}: no mesh fits{nearest}; take more devices, or larger ones")
    return best
