"""Judging: our engine, the published loop, and batched `generate`, each on the same prompts in turn."""

import dataclasses
import operator
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from judgelm_jax.judging.judge import Judge
from judgelm_jax.judging.responses import Response
from judgelm_jax.records.json_lines import Record

# Prompts (int32 ids) and the most tokens to generate for each → the ids that were generated.
Generate = Callable[[Sequence[np.ndarray], int], list[list[int]]]


@dataclasses.dataclass(frozen=True)
class Suite:
    """What is measured: `records` in both orders, `rounds` times."""

    mode: str
    records: Sequence[Record]
    rounds: int


def measure(
    judge: Judge, peers: dict[str, Generate], suite: Suite, parameters: int, peak_tflops: float | None
) -> dict[str, Any]:
    """Runs all sides in turn, `rounds` times, after one warm-up of ours that compiles.

    Args:
      judge: ours, with `orders="both"`.
      peers: by name. Each generates as many tokens as ours did in the mean: in mode `explain` up to the engine's limit, in
        mode `scores` those of a score line, since random weights would never end one by themselves.
      parameters: of the model, embeddings left out, for the share of peak: 2 FLOP each and prompt token that is computed.
      peak_tflops: of all devices together; None: no share is given.

    Returns the medians over rounds, and ours over each peer's as ratios, round by round.
    """
    window = list(enumerate(suite.records))
    warm = time.perf_counter()
    expected = _texts(judge, window)
    warm = time.perf_counter() - warm
    counts = judge.engine.counts
    compile_seconds, programs = counts.compile_seconds, counts.programs
    prompts = [prompt.ids for prompt in judge.prepare(window, {}, "both").prompts]
    new_tokens = judge.settings.max_new_tokens if suite.mode == "explain" else round(statistics.fmean(map(len, expected)))
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    generated: dict[str, list[list[int]]] = {}
    host_shares: list[float] = []
    for _ in range(suite.rounds):
        engine: list[float] = []
        start = time.perf_counter()
        prepared = judge.prepare(window, {}, "both")
        list(judge.judgments(prepared, _timed(judge.engine.run(prepared.prompts), engine)))
        seconds["ours"].append(time.perf_counter() - start)
        host_shares.append(1 - sum(engine) / seconds["ours"][-1])
        for name, generate in peers.items():
            start = time.perf_counter()
            generated[name] = generate(prompts, new_tokens)
            seconds[name].append(time.perf_counter() - start)
    tokens = sum(map(len, prompts))
    ours = statistics.median(seconds["ours"])
    shared = counts.shared_tokens / counts.prompt_tokens
    result: dict[str, Any] = {
        "mode": suite.mode,
        "pairs": len(window),
        "prompts": len(prompts),
        "prompt_tokens": tokens,
        "new_tokens": new_tokens,
        "seconds": seconds,
        "pairs_per_second": {name: len(window) / statistics.median(times) for name, times in seconds.items()},
        "prompt_tokens_per_second": tokens / ours,
        "shared": shared,
        "padding": counts.padding,
        "compile_seconds": compile_seconds,
        "programs": programs,
        "programs_after_warm_up": counts.programs - programs,
        "warm_up_seconds": warm,
        # Prompts, tokenization and verdicts: all but the engine, which itself packs the batches.
        "host_share": statistics.median(host_shares),
        "slots_busy": counts.busy_slot_steps / counts.slot_steps if counts.slot_steps else None,
        "share_of_peak": None if peak_tflops is None else 2 * parameters * (1 - shared) * tokens / ours / (peak_tflops * 1e12),
        "ratio": {
            name: statistics.median(theirs / own for theirs, own in zip(seconds[name], seconds["ours"], strict=True))
            for name in peers
        },
    }
    if suite.mode == "explain":
        same = {name: sum(map(operator.eq, expected, ids)) for name, ids in generated.items()}
        result["same_text"] = {name: f"{count} of {len(prompts)}" for name, count in same.items()}
    return result


def _timed(responses: Iterator[Response], seconds: list[float]) -> Iterator[Response]:
    """The same responses; the seconds that each took to come are appended, and those to the end."""
    while True:
        start = time.perf_counter()
        response = next(responses, None)
        seconds.append(time.perf_counter() - start)
        if response is None:
            return
        yield response


def _texts(judge: Judge, window: Sequence[tuple[int, Record]]) -> list[list[int]]:
    """The ids that ours generates for each prompt, in the order of the prompts."""
    prompts = judge.prepare(window, {}, "both").prompts
    found = {response.index: response.ids for response in judge.engine.run(prompts)}
    return [found[prompt.index] for prompt in prompts]


def published_loop(model: Any, eos: Sequence[int]) -> Generate:
    """One prompt at a time through `generate`, as the published script does it, greedy."""

    def generate(prompts: Sequence[np.ndarray], new_tokens: int) -> list[list[int]]:
        return [_generate(model, [ids], new_tokens, eos)[0] for ids in prompts]

    return generate


def batched_generate(model: Any, eos: Sequence[int], size: int) -> Generate:
    """`generate` with prompts of like length in batches of `size`, padded on the left as it wants them."""

    def generate(prompts: Sequence[np.ndarray], new_tokens: int) -> list[list[int]]:
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            found |= dict(zip(batch, _generate(model, [prompts[i] for i in batch], new_tokens, eos), strict=True))
        return [found[i] for i in range(len(prompts))]

    return generate


def _generate(model: Any, prompts: Sequence[np.ndarray], new_tokens: int, eos: Sequence[int]) -> list[list[int]]:
    import torch

    longest = max(map(len, prompts))
    ids = torch.zeros((len(prompts), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(prompt.astype(np.int64))
        mask[row, longest - len(prompt) :] = 1
    with torch.inference_mode():
        out = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            do_sample=False,
            max_new_tokens=new_tokens,
            eos_token_id=list(eos),
            pad_token_id=eos[0],
        )
    texts = out[:, longest:].tolist()
    return [text[: min((text.index(end) for end in eos if end in text), default=len(text))] for text in texts]
