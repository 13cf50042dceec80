"""Held-out loss and judge metrics, on the parameters as they are in the middle of training."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from judgelm_jax.data.augmentation import shows_reference
from judgelm_jax.data.held_out import as_trained
from judgelm_jax.data.pipeline import batches
from judgelm_jax.evaluation.joining import join_rows
from judgelm_jax.evaluation.metrics import summarize
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.engine import Engine
from judgelm_jax.judging.judge import Judge
from judgelm_jax.judging.trees import Trees
from judgelm_jax.model import parameters
from judgelm_jax.records.json_lines import Record
from judgelm_jax.tokens.tokenization import Tokenizer
from judgelm_jax.training.choice import AGREEMENT, Measured
from judgelm_jax.training.feeding import Feeding
from judgelm_jax.training.loss import Batch, row_losses
from judgelm_jax.training.setup import HeldOut
from judgelm_jax.training.step import Program
from judgelm_jax.training_config import DataConfig, TrainConfig
from judgelm_jax.verdicts import score_lines

# Of the summary of `judgelm-evaluate`, what is logged of each evaluation.
_LOGGED = ("agreement", "agreement_interval", "consistency", "consistency_interval", "delta_bias")

Evaluate = Callable[[Any], Measured]


def make_evaluation(
    held_out: HeldOut, tokenizer: Tokenizer, eos_id: int, config: TrainConfig, program: Program, frozen: Any
) -> Evaluate:
    """What measures trained parameters on held-out records: loss in nats a target, and agreement and consistency as a judge.

    Records stand as they are in the file, with their reference where the run trains with it. The judge metrics are those of
    `judgelm-evaluate` on the merged verdicts of both orders, mode `scores`, against the teacher's scores. Programs are
    compiled once. Every process must call it.
    """
    mesh = program.placement.mesh
    assert mesh is not None
    file, planned = held_out.file, held_out.plan
    feeding = Feeding(planned.batch, mesh)
    cast = jax.jit(program.compute_params)

    @jax.jit
    def cast_unstacked(trained: Any, frozen: Any) -> Any:
        return parameters.unstacked(program.compute_params(trained, frozen), program.model)

    def losses(params: Any, batch: Batch) -> jax.Array:
        return row_losses(params, program.model, batch, program.placement, False, program.loss_chunk)

    losses_of = jax.jit(losses, out_shardings=NamedSharding(mesh, PartitionSpec()))
    judge = _live_judge(tokenizer, config, program)
    records = [as_trained(file[number], config.data) for number in range(len(file))]
    labels = [_label(record, config.data) for record in records]
    (epoch,) = planned.epochs

    def evaluate(trained: Any) -> Measured:
        params = cast(trained, frozen)
        rows = batches(planned, file, tokenizer, eos_id, held_out.data, held_out.recipe, feeding.part, feeding.parts)
        of_rows = [np.asarray(losses_of(params, feeding.put(arrays)), np.float64) for arrays in rows]
        nats = np.concatenate(of_rows)[: len(epoch.numbers)]  # a record a row, in the order of the plan
        del params  # its layers lie stacked: two of it would be on the devices
        judge.engine.load(cast_unstacked(trained, frozen))
        judged = [judgment.row for judgment in judge.judge(records)]
        judge.engine.load({})  # the next step needs the room
        joined = join_rows(labels, judged)
        summary = summarize(joined, parser="tolerant", unparsed="wrong")
        loss = float(nats.sum() / epoch.targets.sum())
        figures = {"loss": loss if np.isfinite(loss) else None, "records": len(records)}
        figures |= {"questions": len(np.unique(file.questions))} | {name: summary[name] for name in _LOGGED}
        if config.checkpoints.best_by == AGREEMENT:
            pairs = zip(labels, joined.predictions, strict=True)
            right = np.array([prediction.headline.winner == label for label, prediction in pairs], np.float64)
            return Measured(figures, right, np.ones(len(right)), file.questions)
        return Measured(figures, nats, epoch.targets.astype(np.float64), file.questions[epoch.numbers])

    return evaluate


def _live_judge(tokenizer: Tokenizer, config: TrainConfig, program: Program) -> Judge:
    """A judge whose engine gets its parameters at each evaluation; it shows the references that the records still have."""
    settings = JudgeConfig(
        mode="scores", orders="both", reference="auto", dtype=program.dtype, attention=config.computation.attention
    )
    assert program.placement.mesh is not None
    engine = Engine({}, program.model, program.placement.mesh, settings, Trees(tokenizer, settings.mode))
    return Judge(engine, tokenizer, settings, "the judge in training")


def _label(record: Record, config: DataConfig) -> int:
    """The winner by the judgment that training would show for the record `as_trained`."""
    with_reference = shows_reference(record.get("text_w_reference") is not None, config)
    return score_lines.winner_of(record["score_w_reference" if with_reference else "score"])
