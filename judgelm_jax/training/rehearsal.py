"""What a training would do, tried for a few steps; nothing is written."""

import time
from typing import Any

import jax

from judgelm_jax.data.pipeline import batches
from judgelm_jax.devices.runtime import memory_bytes
from judgelm_jax.processes.agreement import compare
from judgelm_jax.processes.store import wait_for_all
from judgelm_jax.training import setup
from judgelm_jax.training.beginning import first_state, frozen_params
from judgelm_jax.training.feeding import Feeding
from judgelm_jax.training.fitting import compiled_step
from judgelm_jax.training.identity import agreement_of
from judgelm_jax.training.journal import log
from judgelm_jax.training.programs import state_shapes
from judgelm_jax.training.setup import Sources
from judgelm_jax.training_config import TrainConfig

_STEPS = 3  # the first of which warms up

Found = dict[str, Any]


def rehearse(config: TrainConfig, sources: Sources) -> Found:
    """Checks everything, compiles the training step and takes a few steps.

    Returns:
      `steps` of the run and what each of its `epochs` holds; `compile_seconds`; `seconds` of all steps, from the speed of those
      that were tried, without evaluations and checkpoints; `memory`, the most bytes that a device (of a CPU: the process) used,
      of its `capacity` where that is known; `state_bytes` of a checkpoint.

    Raises:
      InputError: something is wrong with files, config or mesh.
    """
    run = setup.prepare(config, sources, *setup.check_sources(config, sources))
    compare("the run", agreement_of(run.config, run.identity, **{"--dry_run": True, "--device_memory": sources.device_memory}))
    plan, shapes, frozen = run.plan, state_shapes(run.program), frozen_params(run)
    feeding = Feeding(run.config.training.batch, run.mesh)
    if jax.process_index() == 0:
        log("compiling the training step")
    begun = time.perf_counter()
    take_step = compiled_step(run.program, run.config, shapes, frozen, plan.targets, sources.device_memory)
    wait_for_all("step")
    compiled = time.perf_counter() - begun
    state = first_state(run, shapes)
    data, recipe = run.config.data, run.config.training
    rows = batches(plan, run.file, run.tokenizer, run.eos_id, data, recipe, feeding.part, feeding.parts)
    tried = min(_STEPS, plan.steps)
    begun = time.perf_counter()
    for step in range(tried):
        state, metrics = take_step(state, frozen, feeding.put(next(rows)))
        jax.block_until_ready(metrics)
        if step == 0 and tried > 1:
            begun = time.perf_counter()
    seconds = (time.perf_counter() - begun) / max(1, tried - 1)
    statistics = jax.local_devices()[0].memory_stats() or {}
    return {
        "dry_run": True,
        "steps": plan.steps,
        "epochs": {epoch: plan.counts(epoch) for epoch in range(plan.epoch_of(plan.steps - 1) + 1)},
        "compile_seconds": compiled,
        "tried": tried,
        "seconds": seconds * plan.steps,
        "memory": memory_bytes(),
        "capacity": statistics.get("bytes_limit"),
        "state_bytes": sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes)),
    }
