"""What the plan says of programs that were compiled on this machine: their time at best, beside what is measured."""

from collections.abc import Iterable, Sequence

import jax

from judgelm_jax.devices import hardware
from judgelm_jax.judging.batching import Prompt
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
    """Of all programs that the engine ran for these prompts, one after the other; in `explain`, with so many decoding steps.

    Sizes that did not fit the memory have no program: the first that has them all is the one that ran.
    """
    programs = engine.programs
    if engine.settings.mode != "explain":
        sizes = (
            [
                (programs.executable("score", form, *batch.shape), LINE_STEPS, 1.0)
                for form, _, batches in work
                for batch in batches
            ]
            for work in engine.score_sizes(prompts)
        )
        return _first_whole(sizes)
    return _first_whole(
        [
            *((programs.executable("admit", slots, context, *batch.shape), 1, 1.0) for batch in batches),
            (programs.executable("decode", slots, context), DECODE_STEPS, steps / DECODE_STEPS),
        ]
        for slots, context, batches in engine.decoding_sizes(prompts)
    )


def _first_whole(sizes: Iterable[Sequence[tuple[jax.stages.Compiled | None, int, float]]]) -> float | None:
    """Of the first size all of whose programs are there (each with unknown trips and how often it runs), the seconds."""
    known: dict[int, float | None] = {}  # by identity: many batches have one program
    for size in sizes:
        total = 0.0
        for compiled, unknown_trips, times in size:
            if compiled is None:
                break
            if id(compiled) not in known:
                known[id(compiled)] = seconds(compiled, unknown_trips)
            own = known[id(compiled)]
            if own is None:
                return None
            total += times * own
        else:
            return total
    return None
