"""The training loop, in the order in which things happen."""

import contextlib
import signal
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils

from judgelm_jax import processes
from judgelm_jax.checkpoints.training_run import TrainingCheckpoints
from judgelm_jax.data.pipeline import batches
from judgelm_jax.model import lora, parameters
from judgelm_jax.training import export, run_folder, setup
from judgelm_jax.training.choice import LAST, Choice, choose
from judgelm_jax.training.evaluation import make_evaluation
from judgelm_jax.training.feeding import Feeding
from judgelm_jax.training.identity import agreement_of
from judgelm_jax.training.journal import Journal, Silence
from judgelm_jax.training.progress import Progress, Summary
from judgelm_jax.training.setup import Run, Sources
from judgelm_jax.training.step import State, init_state, make_step, state_shardings
from judgelm_jax.training.stopping import Stopped, Stopping, listening
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
        sources = Sources(data, evaluation, init_from, tokenizer, frozenset(insisted))
        run = setup.prepare(config, sources, *setup.check_sources(config, sources))
        processes.compare(
            "the run", agreement_of(run.config, run.identity, **{"--output": str(output.absolute()), "--resume": resume})
        )
        if jax.process_index() == 0:
            run_folder.check_room(output, _state_shapes(run), config.checkpoints.keep + _keeps_best(run))
            stack.enter_context(run_folder.claimed(output, run.identity, run.tokenizer_folder, resume))
        processes.wait_for_all("run folder")
        return _train(run, output, stopping)


def _train(run: Run, output: Path, stopping: Stopping) -> Summary:
    config, plan = run.config, run.plan

    # Weights that stay as they are, and the state: from the last checkpoint, or from where training begins.
    frozen = _frozen(run)
    shapes = _state_shapes(run)
    checkpoints = TrainingCheckpoints(
        output / run_folder.CHECKPOINTS, config.checkpoints.keep, _keeps_best(run), export.about(run)
    )
    restored = checkpoints.restore(shapes)
    step, state = (restored.step, restored.state) if restored else (0, _first_state(run, shapes))
    choice = Choice.from_json(restored.choice) if restored and restored.choice else None
    setup.warn_of_what_is_left_out(plan, config)  # not before: a checkpoint that cannot be restored is one line

    journal = Journal(output, step, plan.steps) if jax.process_index() == 0 else Silence()
    with contextlib.closing(journal), checkpoints:
        # The programs: compiled before the first batch is read.
        journal.say("compiling the training step")
        feeding = Feeding(config.training.batch, run.mesh)
        take_step = _compiled_step(run, shapes, frozen, feeding)
        evaluate = None
        if run.held_out is not None:
            evaluate = make_evaluation(run.held_out, run.tokenizer, run.eos_id, config, run.program, frozen)

        # The data, from where the checkpoint was saved.
        rows = batches(plan, run.file, run.tokenizer, run.eos_id, config.data, config.training, feeding.part, feeding.parts)
        if restored:
            rows.set_state(restored.iterator)

        progress = Progress(run, journal, step)
        stopping.save_first(pass_on=jax.process_count() > 1)
        while step < plan.steps:
            state, metrics = take_step(state, frozen, feeding.put(next(rows)))
            step += 1
            progress.computing(step, metrics)
            checkpoints.check()
            last, stop = step == plan.steps, _must_stop(stopping, step)

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
            if last or stop or _is_due(config.checkpoints.every, step) or chosen:
                progress.settle()
                checkpoints.save(step, state, rows.get_state(), choice.to_json() if choice else None, chosen)
                progress.paused()
            if stop:
                checkpoints.wait()
                raise Stopped(step, stopping.asked or signal.SIGTERM)
        checkpoints.wait()
        stopping.all_saved()

        exported = choice.step if choice else checkpoints.latest
        assert exported is not None
        if jax.process_index() == 0:
            export.export(run, checkpoints.path(exported), output)
        processes.wait_for_all("export")
        return progress.ended(exported, choice)


def _is_due(every: int, step: int) -> bool:
    """Whether something that happens every `steps` steps (0: never) happens after this one."""
    return every > 0 and step % every == 0


def _must_stop(stopping: Stopping, step: int) -> bool:
    """Whether all processes stop after this step; they agree on it."""
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point(step)
    return stopping.asked is not None


def _keeps_best(run: Run) -> bool:
    return run.config.checkpoints.best_by != LAST and run.held_out is not None


def _trained_shardings(run: Run) -> Any:
    """Where the leaves of what is trained lie: adapters, or a whole model."""
    if run.program.lora is not None:
        return lora.shardings(run.model, run.program.lora, run.mesh)
    return parameters.param_shardings(run.model, run.mesh)


def _state_shapes(run: Run) -> State:
    """The state as shapes, dtypes and shardings."""
    optimizer = run.program.optimizer
    trained = jax.eval_shape(lambda: _initial(run))
    shapes = jax.eval_shape(lambda trained: init_state(trained, optimizer), trained)
    shardings = state_shardings(trained, _trained_shardings(run), optimizer, run.mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def _initial(run: Run) -> Any:
    """What is trained, before the first step, where it is random: adapters, or a whole model."""
    key = jax.random.key(run.config.training.seed)
    if run.program.lora is not None:
        return lora.init(run.model, run.program.lora, key)
    return parameters.init_params(run.model, key, jnp.float32)


def _frozen(run: Run) -> Any:
    """With adapters the model that they are trained on, in the dtype of the computation; else None."""
    if run.program.lora is None:
        return None
    assert run.checkpoint is not None
    return run.checkpoint.load(parameters.param_shardings(run.model, run.mesh), run.program.dtype)


def _first_state(run: Run, shapes: State) -> State:
    """The state before the first step, straight into its shards."""
    if run.checkpoint is not None and run.program.lora is None:
        trained = run.checkpoint.load(_trained_shardings(run), jnp.float32)
    else:
        trained = jax.jit(lambda: _initial(run), out_shardings=_trained_shardings(run))()
    make = jax.jit(
        lambda trained: init_state(trained, run.program.optimizer), donate_argnums=0, out_shardings=_shardings(shapes)
    )
    return make(trained)


def _compiled_step(run: Run, shapes: State, frozen: Any, feeding: Feeding) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    step = jax.jit(make_step(run.program), donate_argnums=0, out_shardings=(_shardings(shapes), None))
    return step.lower(shapes, frozen, feeding.shapes(run.config.data.length, run.plan.targets)).compile()


def _shardings(shapes: Any) -> Any:
    return jax.tree.map(lambda x: x.sharding, shapes)
