"""The training loop, in the order in which things happen."""

import contextlib
import signal
from collections.abc import Collection
from pathlib import Path

import jax

from judgelm_jax.checkpoints.training_run import TrainingCheckpoints
from judgelm_jax.data.pipeline import batches
from judgelm_jax.devices import memory
from judgelm_jax.devices.profiling import Profile
from judgelm_jax.processes.agreement import compare
from judgelm_jax.processes.stop import Stop
from judgelm_jax.processes.store import wait_for_all
from judgelm_jax.stopping import Stopped, Stopping, listening
from judgelm_jax.training import export, run_folder, setup
from judgelm_jax.training.beginning import first_state, frozen_params
from judgelm_jax.training.choice import LAST, Choice, choose
from judgelm_jax.training.evaluation import make_evaluation
from judgelm_jax.training.feeding import Feeding
from judgelm_jax.training.fitting import compiled_step
from judgelm_jax.training.identity import agreement_of
from judgelm_jax.training.journal import Journal, Silence
from judgelm_jax.training.programs import state_shapes
from judgelm_jax.training.progress import Progress, Summary
from judgelm_jax.training.setup import Run, Sources
from judgelm_jax.training_config import TrainConfig

__all__ = ["Stopped", "train"]


def train(
    config: TrainConfig,
    data: Path,
    output: Path,
    init_from: str | None = None,
    tokenizer: Path | None = None,
    evaluation: Path | None = None,
    resume: bool = False,
    stopping: Stopping | None = None,
    insisted: Collection[str] = (),
    device_memory: float | None = None,
    profile: int = 0,
) -> Summary:
    """Trains a judge and leaves it in `output`/model, a directory that `Judge.load` opens.

    Args:
      config: the run; it is checked first.
      data: JudgeLM-100K rows, JSON Lines.
      output: the folder of the run: `metrics.jsonl`, `checkpoints/`, `tensorboard/`, and in the end `model/` (with LoRA also
        `adapter/`, in PEFT's form).
      init_from: a checkpoint to go on from, which brings the shape of the model; without one, random weights and a
        `tokenizer` folder.
      evaluation: held-out rows in the form of `data`, for loss and judge metrics in the loop.
      resume: go on with an unfinished run in `output`, to the same end as if it had never stopped.
      stopping: what listens to SIGINT and SIGTERM; by default they are listened to here.
      insisted: the fields of `config.model` that a checkpoint must have as they are there.
      device_memory: GiB that a device may use; None: what it has, where it says so.
      profile: the number of steps that are traced into `output`/profile.

    Returns:
      the last losses and metrics, and what was counted.

    Raises:
      InputError: something is wrong with files, config or mesh; the processes of the run differ; another process trains into
        `output`; the disk is full; too many steps were not finite.
      Stopped: SIGTERM or SIGINT came; the run is saved.
    """
    with contextlib.ExitStack() as stack:
        if stopping is None:
            stopping = stack.enter_context(listening())
        sources = Sources(data, evaluation, init_from, tokenizer, frozenset(insisted), device_memory)
        run = setup.prepare(config, sources, *setup.check_sources(config, sources))
        own = {"--output": str(output.absolute()), "--resume": resume, "--device_memory": device_memory}
        compare("the run", agreement_of(run.config, run.identity, **own))
        if jax.process_index() == 0:
            run_folder.check_room(output, state_shapes(run.program), config.checkpoints.keep + _keeps_best(run))
            stack.enter_context(run_folder.claimed(output, run.identity, run.tokenizer_folder, resume))
        wait_for_all("run folder")
        with memory.explained(lambda: "take a smaller --config.training.micro_batch, or split the model over more devices"):
            return _train(run, output, stopping, profile)


def _train(run: Run, output: Path, stopping: Stopping, profiled_steps: int) -> Summary:
    config, plan = run.config, run.plan

    # Weights that stay as they are, and the state: from the last checkpoint, or from where training begins.
    frozen = frozen_params(run)
    shapes = state_shapes(run.program)
    checkpoints = TrainingCheckpoints(
        output / run_folder.CHECKPOINTS, config.checkpoints.keep, _keeps_best(run), export.about(run)
    )
    restored = checkpoints.restore(shapes)
    step, state = (restored.step, restored.state) if restored else (0, first_state(run, shapes))
    choice = Choice.from_json(restored.choice) if restored and restored.choice else None
    setup.warn_of_what_is_left_out(plan, config)  # not before: a checkpoint that cannot be restored is one line

    journal = Journal(output, step, plan.steps) if jax.process_index() == 0 else Silence()
    profile = Profile(output / run_folder.PROFILE, profiled_steps)
    with contextlib.closing(journal), checkpoints, contextlib.closing(profile):
        progress = Progress(run, journal, step)
        if step < plan.steps:
            # The programs: compiled before the first batch is read.
            journal.say("compiling the training step")
            feeding = Feeding(config.training.batch, run.mesh)
            take_step = compiled_step(run.program, config, shapes, frozen, plan.targets, run.sources.device_memory)
            wait_for_all("step")
            evaluate = None
            if run.held_out is not None:
                evaluate = make_evaluation(run.held_out, run.tokenizer, run.eos_id, config, run.program, frozen)

            # The data, from where the checkpoint was saved.
            rows = batches(plan, run.file, run.tokenizer, run.eos_id, config.data, config.training, feeding.part, feeding.parts)
            if restored:
                rows.set_state(restored.iterator)

            stop = Stop()
            stopping.save_first()
            while step < plan.steps:
                state, metrics = take_step(state, frozen, feeding.put(next(rows)))
                step += 1
                profile.stepped(metrics)
                progress.computing(step, metrics)
                checkpoints.check()
                last, stops = step == plan.steps, stop.after(step, stopping.asked)

                chosen = False
                if evaluate is not None and (last or _is_due(config.evaluation.every, step)):
                    progress.settle()
                    measured = evaluate(state["params"])
                    if config.checkpoints.best_by != LAST:
                        choice = choose(choice, step, measured, config.checkpoints.best_by)
                        chosen = choice is not None and choice.step == step
                    progress.evaluated(step, measured.figures, choice)
                if last or plan.epoch_of(step) != plan.epoch_of(step - 1):
                    progress.settle()
                    progress.ended_epoch(step, plan.epoch_of(step - 1))
                if last or stops or _is_due(config.checkpoints.every, step) or chosen:
                    progress.settle()
                    checkpoints.save(step, state, rows.get_state(), choice.to_json() if choice else None, chosen)
                    progress.paused()
                if stops:
                    checkpoints.wait()
                    raise Stopped(step, stop.signal or signal.SIGTERM)
            checkpoints.wait()
            stopping.all_saved()

        exported = choice.step if choice else checkpoints.latest
        assert exported is not None
        if jax.process_index() == 0:
            export.export(run, checkpoints.path(exported), output)
        wait_for_all("export")
        return progress.ended(exported, choice)


def _is_due(every: int, step: int) -> bool:
    """Whether something that happens every `steps` steps (0: never) happens after this one."""
    return every > 0 and step % every == 0


def _keeps_best(run: Run) -> bool:
    return run.config.checkpoints.best_by != LAST and run.held_out is not None
