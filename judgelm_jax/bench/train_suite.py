"""Training: our step beside a plain PyTorch loop, each on the same examples in turn."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.data.pipeline import batches
from judgelm_jax.model import parameters
from judgelm_jax.training.feeding import Feeding
from judgelm_jax.training.loss import Batch
from judgelm_jax.training.setup import Run
from judgelm_jax.training.step import init_state, make_step, state_shardings
from judgelm_jax.training.throughput import peak_flops, step_flops
from judgelm_jax.training_config import ComputationConfig, DataConfig, ModelShape, RecipeConfig, TrainConfig

# Examples (ids, and how many of them are the prompt) of one step → the loss in nats a target.
PeerStep = Callable[[Sequence[tuple[np.ndarray, int]]], float]


@dataclasses.dataclass(frozen=True)
class Step:
    """One step: the batch as we compute it, and its documents one by one as a peer wants them."""

    batch: Batch
    examples: list[tuple[np.ndarray, int]]
    tokens: int


def steps_of(run: Run, count: int) -> list[Step]:
    """The first steps of a planned run."""
    feeding = Feeding(run.config.training.batch, run.mesh)
    rows = batches(run.plan, run.file, run.tokenizer, run.eos_id, run.config.data, run.config.training)
    steps = []
    for arrays, _ in zip(rows, range(count), strict=False):
        documents = [document for row in range(len(arrays["tokens"])) for document in _documents(arrays, row)]
        steps.append(Step(feeding.put(arrays), documents, int((arrays["segments"] > 0).sum())))
    return steps


def measure(run: Run, trained: parameters.Params, peer: PeerStep | None, steps: Sequence[Step], rounds: int) -> dict[str, Any]:
    """Trains both sides on the same steps, in turn, `rounds` times; the first round of each is a warm-up and not counted.

    Only tokens of documents count; what a side computes beside them (padding) is its own affair.
    """
    shardings = parameters.param_shardings(run.model, run.mesh)
    placed = state_shardings(trained, shardings, run.program.optimizer, run.mesh)
    state = jax.jit(lambda x: init_state(x, run.program.optimizer), out_shardings=placed)(trained)
    start = time.perf_counter()
    step = jax.jit(make_step(run.program), donate_argnums=0, out_shardings=(placed, None))
    compiled = step.lower(state, None, steps[0].batch).compile()
    compile_seconds = time.perf_counter() - start

    def ours(state: Any) -> tuple[Any, list[float]]:
        losses = []
        for one in steps:
            state, metrics = compiled(state, None, one.batch)
            losses.append(metrics["loss"])
        return state, [float(loss) for loss in losses]

    seconds: dict[str, list[float]] = {name: [] for name in (("ours", "peer") if peer else ("ours",))}
    losses: dict[str, list[float]] = {name: [] for name in seconds}
    for number in range(rounds + 1):
        start = time.perf_counter()
        state, own = ours(state)
        _keep(number, seconds["ours"], time.perf_counter() - start)
        losses["ours"] += own
        if peer is not None:
            start = time.perf_counter()
            losses["peer"] += [peer(one.examples) for one in steps]
            _keep(number, seconds["peer"], time.perf_counter() - start)
    tokens = sum(one.tokens for one in steps)
    computed = sum(one.batch.tokens.size for one in steps)
    sizes = [(len(ids), len(ids) - prompt) for one in steps for ids, prompt in one.examples]
    flops = step_flops(run.model, tokens, sum(n**2 for n, _ in sizes), sum(targets for _, targets in sizes), False)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    peak = peak_flops(run.config.computation.peak_tflops, run.program.dtype)
    result: dict[str, Any] = {
        "steps": len(steps),
        "examples": len(sizes),
        "tokens": tokens,
        "padding": 1 - tokens / computed,
        "seconds": seconds,
        "tokens_per_second": {name: tokens / time for name, time in median.items()},
        "tflops": flops / median["ours"] / 1e12,
        "utilization": None if peak is None else flops / median["ours"] / peak,
        "compile_seconds": compile_seconds,
        "losses": losses,
    }
    if peer is not None:
        ratios = [theirs / own for theirs, own in zip(seconds["peer"], seconds["ours"], strict=True)]
        result["ratio"] = statistics.median(ratios)
        result["loss_difference"] = max(abs(a - b) for a, b in zip(losses["ours"], losses["peer"], strict=True))
    return result


def config_for(folder: Path, rows: int, length: int, dtype: str, mesh: str, peak_tflops: float | None) -> TrainConfig:
    """A run on the checkpoint in `folder`, packed, without augmentation, everything of a device at once."""
    shape = open_checkpoint(str(folder)).config
    sizes = {field.name: getattr(shape, field.name) for field in dataclasses.fields(ModelShape)}
    return TrainConfig(
        model=ModelShape(**sizes),
        data=DataConfig(swap_augmentation=0.0, reference_support=False, length=length, packing=True),
        training=RecipeConfig(epochs=1, batch=rows, learning_rate=1e-4),
        computation=ComputationConfig(dtype=dtype, mesh=mesh, remat="none", peak_tflops=peak_tflops or 0.0),
    )


def torch_peer(model: Any, micro_batch: int, learning_rates: Sequence[float], recipe: RecipeConfig) -> PeerStep:
    """A plain loop as with Hugging Face's `Trainer`: micro-batches padded to their longest, gradients added, clipped, AdamW.

    `learning_rates`: of each step in turn.
    """
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1.0, betas=(recipe.beta1, recipe.beta2), eps=recipe.epsilon, weight_decay=0.0
    )
    rates = iter(learning_rates)

    def step(examples: Sequence[tuple[np.ndarray, int]]) -> float:
        targets = sum(len(ids) - prompt for ids, prompt in examples)
        total = 0.0
        for start in range(0, len(examples), micro_batch):
            part = examples[start : start + micro_batch]
            longest = max(len(ids) for ids, _ in part)
            tokens = torch.zeros((len(part), longest), dtype=torch.long)
            labels = torch.full_like(tokens, -100)
            mask = torch.zeros_like(tokens)
            for row, (ids, prompt) in enumerate(part):
                tokens[row, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
                labels[row, prompt : len(ids)] = tokens[row, prompt : len(ids)]
                mask[row, : len(ids)] = 1
            logits = model(tokens.to(model.device), attention_mask=mask.to(model.device)).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(
                logits.reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1).to(model.device), reduction="sum"
            )
            (loss / targets).backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = next(rates)
        optimizer.step()
        optimizer.zero_grad()
        return total / targets

    return step


def _keep(number: int, seconds: list[float], one: float) -> None:
    if number > 0:
        seconds.append(one)


def _documents(arrays: dict[str, np.ndarray], row: int) -> list[tuple[np.ndarray, int]]:
    """The ids of each document of a row, and how many of them are its prompt."""
    segments, mask, indices = arrays["segments"][row], arrays["target_mask"][row] > 0, arrays["target_indices"][row]
    found = []
    for number in range(1, segments.max() + 1):
        start, size = int(np.argmax(segments == number)), int((segments == number).sum())
        own = indices[mask & (indices >= start) & (indices < start + size)]
        found.append((arrays["tokens"][row, start : start + size], int(own.min()) + 1 - start))
    return found
