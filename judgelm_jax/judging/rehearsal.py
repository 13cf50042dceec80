"""What a judging run would do, tried on its first prompts; nothing is written."""

import dataclasses
import itertools
import time
from typing import Any

import jax

from judgelm_jax.devices.runtime import memory_bytes
from judgelm_jax.errors import InputError
from judgelm_jax.judging.judge import Judge
from judgelm_jax.judging.prepared import windows
from judgelm_jax.judging.responses import NOT_FINITE
from judgelm_jax.judging.runner import CheckedInput, Job
from judgelm_jax.notices import duration
from judgelm_jax.records.json_lines import read_jsonl

_TRIED = 64  # prompts for each device


@dataclasses.dataclass(frozen=True)
class Rehearsal:
    """What was found.

    `records`, `prompts`, `tokens`: of this part of the input. `longest`: the most tokens of a prompt. `shortened`, `overflow`:
    prompts whose answers are cut, and that do not fit. `programs`: of the first window of records; they were compiled in
    `compile_seconds`. `seconds`: what the whole would take beside that, from the speed of the `tried` prompts. `memory`: bytes
    that a device (of a CPU: the process) used at most, of its `capacity` where that is known.
    """

    records: int
    prompts: int
    tokens: int
    longest: int
    shortened: int
    overflow: int
    programs: int
    compile_seconds: float
    tried: int
    seconds: float
    memory: int | None
    capacity: int | None

    def lines(self) -> list[str]:
        """For people."""
        memory = "not known" if self.memory is None else f"{self.memory / 1e9:.2f} GB in use on a device at most"
        room = "" if self.capacity is None else f", of {self.capacity / 1e9:.2f} GB"
        return [
            f"records    {self.records}: {self.prompts} prompts, {self.tokens} tokens, the longest {self.longest}; "
            f"{self.shortened} shortened, {self.overflow} do not fit",
            f"programs   {self.programs}, compiled in {duration(self.compile_seconds)}",
            f"memory     {memory}{room}",
            f"time       about {duration(self.seconds)} beside compiling, from {self.tried} prompts that were tried",
            "dry run    nothing was written",
        ]

    def summary(self) -> dict[str, Any]:
        """For a program."""
        return {"dry_run": True} | dataclasses.asdict(self)


def rehearse(job: Job, checked: CheckedInput, judge: Judge) -> Rehearsal:
    """Tokenizes this part of the input, compiles the programs of its first window and tries its first prompts.

    Raises:
      InputError: a prompt is too long and `on_overflow` is `error`, or the model's logits are not finite.
    """
    numbered = enumerate(record for _, record in read_jsonl(job.input))
    own = itertools.islice(numbered, job.part, checked.records, job.parts)
    records = prompts = tokens = longest = shortened = overflow = tried = 0
    seconds = 0.0
    counts = judge.engine.counts
    for number, window in enumerate(windows(own)):
        prepared = judge.prepare(window, checked.references, judge.settings.orders)
        lengths = [len(prompt.ids) for prompt in prepared.prompts]
        records, prompts, tokens = records + len(window), prompts + len(lengths), tokens + sum(lengths)
        longest = max([longest, *lengths])
        shortened += sum(any(one.removed) for one in prepared.shown)
        overflow += len(prepared.verdicts)
        if number == 0:
            begun = time.perf_counter()
            for response in itertools.islice(judge.engine.run(prepared.prompts), _TRIED * jax.device_count()):
                if response.finish == NOT_FINITE:
                    raise InputError(
                        f"{judge.source}: the model's logits are not finite (NaN or infinity), so nothing that it says counts; "
                        "check the checkpoint, or try --dtype=float32"
                    )
                tried += 1
            seconds = time.perf_counter() - begun - counts.compile_seconds
    # Generated tokens take most of the time of explanations, those of prompts that of scores.
    share = tried / max(1, prompts) if judge.settings.mode == "explain" else counts.prompt_tokens / max(1, tokens)
    statistics = jax.local_devices()[0].memory_stats() or {}
    return Rehearsal(
        records=records,
        prompts=prompts,
        tokens=tokens,
        longest=longest,
        shortened=shortened,
        overflow=overflow,
        programs=counts.programs,
        compile_seconds=counts.compile_seconds,
        tried=tried,
        seconds=seconds / share if share else 0.0,
        memory=memory_bytes(),
        capacity=statistics.get("bytes_limit"),
    )
