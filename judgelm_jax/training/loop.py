"""The training loop, in the order in which things happen."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from judgelm_jax.checkpoints.training_run import TrainingCheckpoints
from judgelm_jax.data.pipeline import batches
from judgelm_jax.errors import InputError
from judgelm_jax.model import llama, lora
from judgelm_jax.training import export, setup
from judgelm_jax.training.evaluation import make_evaluation
from judgelm_jax.training.feeding import Feeding
from judgelm_jax.training.journal import Journal, Silence
from judgelm_jax.training.setup import Run, Sources
from judgelm_jax.training.step import State, init_state, make_step, state_shardings
from judgelm_jax.training.throughput import Clock, memory_bytes, peak_flops, step_flops
from judgelm_jax.training_config import TrainConfig

Summary = dict[str, Any]

_CHECKPOINTS = "checkpoints"


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    """The run was asked to stop (SIGTERM) and saved itself after `step` steps."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step}, which is saved; run again with --resume to go on")
        self.step = step


def train(
    config: TrainConfig,
    data: Path,
    output: Path,
    init_from: str | None = None,
    tokenizer: Path | None = None,
    evaluation: Path | None = None,
    resume: bool = False,
) -> Summary:
    """Trains a judge and leaves it in `output`/model, a directory that `Judge.load` opens.

    Args:
      config: the run; it is checked first.
      data: JudgeLM-100K rows, JSON Lines.
      output: the folder of the run: `metrics.jsonl`, `checkpoints/`, `tensorboard/`, and in the end `model/` (with LoRA also
        `adapter/`, in PEFT's form).
      init_from: a checkpoint to go on from; without one, random weights and a `tokenizer` folder.
      evaluation: held-out rows in the form of `data`, for loss and judge metrics in the loop.
      resume: go on with an unfinished run in `output`, to the same end as if it had never stopped.

    Returns:
      the last losses and metrics, and what was counted.

    Raises:
      InputError: something is wrong with files, config or mesh; the disk is full; too many steps were not finite.
      Stopped: SIGTERM came; the run is saved.
    """
    sources = Sources(data, evaluation, init_from, tokenizer)
    run = setup.prepare(config, sources, *setup.check_sources(config, sources))
    with _asked_to_stop() as asked_to_stop:
        return _train(run, output, resume, asked_to_stop)


def _train(run: Run, output: Path, resume: bool, asked_to_stop: threading.Event) -> Summary:
    config, mesh, plan = run.config, run.mesh, run.plan
    first = jax.process_index() == 0

    # The shape of what is trained and of the state of training, and the folder of the run.
    whole = llama.param_shardings(run.model, mesh)
    shardings = whole if run.program.lora is None else lora.shardings(run.model, run.program.lora, mesh)
    trained_shapes = jax.eval_shape(lambda: _initial(run))
    placed = state_shardings(trained_shapes, shardings, run.program.optimizer, mesh)
    shapes = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(lambda trained: init_state(trained, run.program.optimizer), trained_shapes),
        placed,
    )
    best = config.checkpoints.best and run.held_out is not None
    if first:
        setup.check_room(output, shapes, config.checkpoints.keep + best)
        setup.open_folder(output, run, resume)
    multihost_sync("run folder")

    # Their values, straight into their shards.
    frozen = None
    if run.program.lora is not None:
        assert run.checkpoint is not None
        frozen = run.checkpoint.load(whole, run.program.dtype)
    checkpoints = TrainingCheckpoints(
        output / _CHECKPOINTS, config.checkpoints.keep, config.checkpoints.best, export.about(run)
    )
    restored = checkpoints.restore(shapes)
    step, iterator_state = (restored.step, restored.iterator) if restored else (0, None)
    state = restored.state if restored else _first_state(run, shardings, placed)

    # The programs: compiled before the first batch is read.
    feeding = Feeding(config.training.batch, mesh)
    step_shapes = (shapes, frozen, feeding.shapes(config.data.length, plan.targets))
    compiled = jax.jit(make_step(run.program), donate_argnums=0, out_shardings=(placed, None)).lower(*step_shapes).compile()
    evaluate = None
    if run.held_out is not None:
        evaluate = make_evaluation(run.held_out, run.tokenizer, run.eos_id, config, run.program, frozen)

    rows = batches(plan, run.file, run.tokenizer, run.eos_id, config.data, config.training, feeding.part, feeding.parts)
    if iterator_state is not None:
        rows.set_state(iterator_state)
    journal = Journal(output, step, plan.steps) if first else Silence()
    clock = Clock()
    pending: tuple[int, dict[str, jax.Array]] | None = None
    summary: Summary = {"steps": plan.steps, "resumed_from": step}

    def settle() -> None:
        """Fetches the metrics of the step before, while the device computes the next one."""
        nonlocal pending
        if pending is not None:
            summary.update(_told(run, journal, clock, *pending))
            pending = None

    try:
        while step < plan.steps:
            batch = feeding.put(next(rows))
            state, metrics = compiled(state, frozen, batch)
            settle()
            step += 1
            pending = step, metrics

            last = step == plan.steps
            stop = _must_stop(asked_to_stop, step)
            evaluated: dict[str, Any] | None = None
            if evaluate is not None and (last or (config.evaluation.every and step % config.evaluation.every == 0)):
                settle()
                evaluated = evaluate(state["params"])
                journal.write(step, "evaluation", evaluated)
                summary["evaluation"] = evaluated
                clock.lap()
            if plan.epoch_of(step - 1) != (None if last else plan.epoch_of(step)):
                settle()
                counts = plan.counts(plan.epoch_of(step - 1))
                journal.write(step, "epoch", counts)
                journal.say(
                    f"epoch {plan.epoch_of(step - 1) + 1}: {', '.join(f'{n:.4g} {what}' for what, n in counts.items())}"
                )
                summary.setdefault("epochs", {})[plan.epoch_of(step - 1)] = counts
            if last or stop or step % config.checkpoints.every == 0 or (evaluated and config.checkpoints.best):
                settle()
                checkpoints.save(step, state, rows.get_state(), evaluated["agreement"] if evaluated else None)
                clock.lap()
            if stop and not last:
                checkpoints.wait()
                raise Stopped(step)
        settle()
        checkpoints.wait()
        chosen = (config.checkpoints.best and checkpoints.best) or checkpoints.latest
        assert chosen is not None
        if first:
            export.export(run, checkpoints.path(chosen), output)
        multihost_sync("export")
        return summary | {"exported_step": chosen}
    finally:
        journal.close()
        with contextlib.suppress(InputError):  # said before, where it matters
            checkpoints.close()


def _initial(run: Run) -> Any:
    """What is trained, before the first step, where it is random: adapters, or a whole model."""
    key = jax.random.key(run.config.training.seed)
    if run.program.lora is not None:
        return lora.init(run.model, run.program.lora, key)
    return llama.init_params(run.model, key, jnp.float32)


def _first_state(run: Run, shardings: Any, placed: Any) -> State:
    if run.checkpoint is not None and run.program.lora is None:
        trained = run.checkpoint.load(shardings, jnp.float32)
    else:
        trained = jax.jit(lambda: _initial(run), out_shardings=shardings)()
    make = jax.jit(lambda trained: init_state(trained, run.program.optimizer), donate_argnums=0, out_shardings=placed)
    return make(trained)


def _told(run: Run, journal: Journal | Silence, clock: Clock, step: int, metrics: dict[str, jax.Array]) -> Summary:
    """Writes the metrics of a step; returns those of the summary.

    Raises:
      InputError: too many steps in a row were not finite.
    """
    values = {name: float(np.asarray(value)) for name, value in metrics.items()}
    seconds = clock.lap()
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
    journal.write(step, "train", line)
    if None in finite.values():
        journal.say(f"step {step}: loss or gradient is not finite; the step is skipped ({line['skipped']} so far)")
    if values["skipped_in_a_row"] >= run.config.training.skipped_in_a_row:
        ids = run.plan.identities(step - 1)
        shown = ", ".join(map(repr, ids[:20])) + (f" and {len(ids) - 20} more" if len(ids) > 20 else "")
        raise InputError(
            f"step {step}: loss or gradient was not finite in {int(values['skipped_in_a_row'])} steps in a row, and "
            f"the parameters are as they were before; look at the records of the batch ({shown}), or lower "
            "--config.training.learning_rate"
        )
    return {"loss": line["loss"], "skipped": line["skipped"]}


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Turns SIGTERM into an event, where this is the main thread of one process; several have JAX's own service."""
    asked = threading.Event()
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _must_stop(asked: threading.Event, step: int) -> bool:
    """Whether all processes stop after this step; they agree on it."""
    return multihost_utils.reached_preemption_sync_point(step) if jax.process_count() > 1 else asked.is_set()


def multihost_sync(what: str) -> None:
    """Waits for all processes."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
