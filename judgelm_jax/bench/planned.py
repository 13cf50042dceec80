"""What the plan says of programs that were compiled on this machine: their time at best, beside what is measured."""

from collections.abc import Callable, Sequence

import jax

from judgelm_jax import hardware
from judgelm_jax.judging.batching import Batch, Prompt
from judgelm_jax.judging.engine import Engine
from judgelm_jax.judging.scheduler import DECODE_STEPS
from judgelm_jax.planning.hlo import parse
from judgelm_jax.planning.programs import LINE_STEPS
from judgelm_jax.planning.roofline import roofline
from judgelm_jax.planning.work import work


def seconds(compiled: jax.stages.Compiled, unknown_trips: int) -> float | None:
    """Of one run; None for devices whose peak nobody knows. `unknown_trips`: of loops whose end depends on data."""
    device, text = hardware.of_kind(jax.devices()[0].device_kind), compiled.as_text()
    return None if device is None or text is None else roofline(work(parse(text), unknown_trips), device).seconds


def judging_seconds(engine: Engine, prompts: Sequence[Prompt], steps: float) -> float | None:
    """Of all programs that the engine ran for these prompts, one after the other; in `explain`, with so many decoding steps."""
    programs = engine.programs
    if engine.settings.mode != "explain":
        ((form, _, batches),) = next(iter(engine.score_sizes(prompts)))
        return _sum(batches, lambda batch: programs.executable("score", form, *batch.shape), LINE_STEPS)
    slots, context, batches = next(iter(engine.decoding_sizes(prompts)))
    admitted = _sum(batches, lambda batch: programs.executable("admit", slots, context, *batch.shape), 1)
    decoded = seconds(programs.executable("decode", slots, context), DECODE_STEPS)
    return None if admitted is None or decoded is None else admitted + decoded * steps / DECODE_STEPS


def _sum(batches: Sequence[Batch], executable: Callable[[Batch], jax.stages.Compiled], unknown_trips: int) -> float | None:
    known: dict[tuple[int, ...], float | None] = {}
    for batch in batches:
        if batch.shape not in known:
            known[batch.shape] = seconds(executable(batch), unknown_trips)
    each = [known[batch.shape] for batch in batches]
    return None if None in each else sum(one for one in each if one is not None)
