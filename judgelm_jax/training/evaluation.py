"""Held-out loss and judge metrics, on the parameters as they are in the middle of training."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from judgelm_jax import verdicts
from judgelm_jax.data.pipeline import batches, plan
from judgelm_jax.data.training_file import TrainingFile
from judgelm_jax.evaluation.joining import join_rows
from judgelm_jax.evaluation.metrics import summarize
from judgelm_jax.judging import score_tree
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.engine import Engine
from judgelm_jax.judging.judge import Judge
from judgelm_jax.records import Record
from judgelm_jax.tokenization import Tokenizer
from judgelm_jax.training.feeding import Feeding
from judgelm_jax.training.loss import Batch, total_loss
from judgelm_jax.training.step import Program
from judgelm_jax.training_config import RecipeConfig, TrainConfig

# Of the summary of `judgelm-evaluate`, what is logged of each evaluation.
_LOGGED = ("agreement", "agreement_interval", "consistency", "consistency_interval", "delta_bias")

Evaluate = Callable[[Any], dict[str, Any]]


def make_evaluation(
    held_out: TrainingFile, tokenizer: Tokenizer, eos_id: int, config: TrainConfig, program: Program, frozen: Any
) -> Evaluate:
    """What measures trained parameters on a held-out file: loss in nats a target, and agreement and consistency as a judge.

    Records stand as they are in the file, with their reference where the run trains with references. The judge metrics are
    those of `judgelm-evaluate` on the merged verdicts of both orders, mode `scores`, against the teacher's scores. Programs
    are compiled once. Every process must call it.
    """
    mesh = program.placement.mesh
    assert mesh is not None
    data = dataclasses.replace(config.data, swap_augmentation=0.0, reference_drop=0.0)
    recipe = RecipeConfig(epochs=1, batch=config.training.batch, seed=config.training.seed)
    rows = plan(held_out, tokenizer, eos_id, data, recipe)
    feeding = Feeding(recipe.batch, mesh)
    cast = jax.jit(program.compute_params)

    def loss(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
        total = total_loss(params, program.model, batch, program.placement, program.packed, program.loss_chunk)
        return total, batch.target_mask.sum()

    loss_of = jax.jit(loss, out_shardings=NamedSharding(mesh, PartitionSpec()))
    judge = _live_judge(tokenizer, config, program)
    records = [held_out[number] for number in range(len(held_out))]
    labels = [_label(record, config.data.reference_support) for record in records]

    def evaluate(trained: Any) -> dict[str, Any]:
        params = cast(trained, frozen)
        nll = targets = 0.0
        for arrays in batches(rows, held_out, tokenizer, eos_id, data, recipe, feeding.part, feeding.parts):
            total, count = loss_of(params, feeding.put(arrays))
            nll, targets = nll + float(total), targets + float(count)
        judge.engine.load(params)
        judged = [judgment.row for judgment in judge.judge(records)]
        judge.engine.load({})  # the next step needs the room
        summary = summarize(join_rows(labels, judged), parser="tolerant", unparsed="wrong")
        loss = nll / targets if math.isfinite(nll) else None
        return {"loss": loss, "records": len(records)} | {name: summary[name] for name in _LOGGED}

    return evaluate


def _live_judge(tokenizer: Tokenizer, config: TrainConfig, program: Program) -> Judge:
    """A judge whose engine gets its parameters at each evaluation."""
    settings = JudgeConfig(
        mode="scores",
        orders="both",
        reference="auto" if config.data.reference_support else "none",
        dtype=program.dtype,
        attention=config.computation.attention,
    )
    tree = score_tree.build(tokenizer, verdicts.score_lines(2))
    assert program.placement.mesh is not None
    engine = Engine({}, program.model, program.placement.mesh, settings, tree)
    return Judge(engine, tokenizer, settings, "the judge in training")


def _label(record: Record, with_reference: bool) -> int:
    scores = record["score"]
    if with_reference and record.get("score_w_reference") is not None:
        scores = record["score_w_reference"]
    return verdicts.winner_of(scores)
