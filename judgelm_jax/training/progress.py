"""What is told of the steps as they get done.

Metrics come from the device one step late: it computes the next step while the host tells the last one.
"""

from typing import Any

import jax
import numpy as np

from judgelm_jax.devices.runtime import memory_bytes
from judgelm_jax.errors import InputError
from judgelm_jax.training.choice import Choice
from judgelm_jax.training.journal import Journal, Silence
from judgelm_jax.training.setup import Run
from judgelm_jax.training.throughput import Clock, peak_flops, step_flops

Summary = dict[str, Any]


class Progress:
    """Writes steps, evaluations and epochs to a journal, and gathers the summary of the run."""

    def __init__(self, run: Run, journal: Journal | Silence, step: int):
        """`step` steps are done."""
        self.summary: Summary = {"steps": run.plan.steps, "resumed_from": step}
        self._run, self._journal, self._clock = run, journal, Clock()
        self._unfetched: tuple[int, dict[str, jax.Array]] | None = None

    def computing(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """The device computes this step: tells the one before.

        Raises:
          InputError: too many steps in a row were not finite, or the disk is full.
        """
        before, self._unfetched = self._unfetched, (step, metrics)
        if before is not None:
            self._tell(*before)

    def settle(self) -> None:
        """Tells the last step, waiting for the device. Raises as `computing`."""
        before, self._unfetched = self._unfetched, None
        if before is not None:
            self._tell(*before)

    def evaluated(self, step: int, figures: dict[str, Any], choice: Choice | None) -> None:
        """Tells the held-out figures after a step, and which step is chosen since then."""
        chosen = {} if choice is None else {"chosen_step": choice.step, "why": choice.why}
        self._journal.write(step, "evaluation", figures | chosen)
        if choice is not None:
            self._journal.say(f"step {choice.step} is chosen so far: {choice.why}")
        self.summary["last_evaluation"] = {"step": step} | figures
        self.paused()

    def ended_epoch(self, step: int, epoch: int) -> None:
        """Tells what was trained in an epoch, from 0, that ended with a step."""
        counts = self._run.plan.counts(epoch)
        self._journal.write(step, "epoch", counts)
        self._journal.say(f"epoch {epoch + 1}: {', '.join(f'{n:.4g} {what}' for what, n in counts.items())}")

    def ended(self, exported: int, choice: Choice | None) -> Summary:
        """The summary of a run that is done: of all its epochs, also those before it was gone on with.

        Args:
          exported: the step that is left as the model.
        """
        plan = self._run.plan
        self.summary["epochs"] = {epoch: plan.counts(epoch) for epoch in range(plan.epoch_of(plan.steps - 1) + 1)}
        evaluation = choice and {"step": choice.step} | choice.figures
        if evaluation is None and "last_evaluation" in self.summary:
            evaluation = self.summary["last_evaluation"]
        if evaluation is not None:
            self.summary["evaluation"] = evaluation
        why = "the last step" if choice is None else choice.why
        return self.summary | {"exported_step": exported, "why": why}

    def paused(self) -> None:
        """What was done since the last step is no part of the time of the next."""
        self._clock.lap()

    def _tell(self, step: int, metrics: dict[str, jax.Array]) -> None:
        run = self._run
        values = {name: float(np.asarray(value)) for name, value in metrics.items()}
        seconds = self._clock.lap()
        flops = step_flops(run.model, values["tokens"], values["squares"], values["targets"], run.program.lora is not None)
        peak = peak_flops(run.config.computation.peak_tflops, run.program.dtype)
        finite = {name: values[name] if np.isfinite(values[name]) else None for name in ("loss", "gradient_norm")}
        line = {
            **finite,
            "learning_rate": values["learning_rate"],
            "targets": int(values["targets"]),
            "tokens": int(values["tokens"]),
            "skipped": int(values["skipped"]),
            "seconds": seconds,
            "tokens_per_second": values["tokens"] / seconds,
            "tflops": flops / seconds / 1e12,
            "utilization": None if peak is None else flops / seconds / peak,
            "memory_bytes": memory_bytes(),
        }
        self._journal.write(step, "train", line)
        self.summary |= {"loss": line["loss"], "skipped": line["skipped"]}
        if None in finite.values():
            self._journal.say(f"step {step}: loss or gradient is not finite; the step is skipped ({line['skipped']} so far)")
        if values["skipped_in_a_row"] >= run.config.training.skipped_in_a_row:
            self._give_up(step, int(values["skipped_in_a_row"]))

    def _give_up(self, step: int, skipped_in_a_row: int) -> None:
        ids = self._run.plan.identities(step - 1)
        shown = ", ".join(map(repr, ids[:20])) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
        raise InputError(
            f"step {step}: loss or gradient was not finite in {skipped_in_a_row} steps in a row, and the parameters are as "
            f"they were before; look at the records of the batch ({shown}), or lower --config.training.learning_rate"
        )
