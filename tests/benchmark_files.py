"""What tests of several benchmarks use: files written in a benchmark's layout, and scores of judgments made for them."""

import json
from pathlib import Path

from judgelm_jax.evaluation.benchmarks.benchmark import Benchmark, Loaded, imported
from judgelm_jax.evaluation.benchmarks.scoring import Summary, summarize_benchmark


def write_lines(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def score(benchmark: Benchmark, loaded: Loaded, games: list, protocol: str | None = None, **named: str) -> Summary:
    """The summary of judgments with these winners: a tuple of one or two games an item, None for no judgment."""
    rows = [
        imported(record, "judge", *winners)
        for record, winners in zip(loaded.records, games, strict=True)
        if winners is not None
    ]
    return summary_of(benchmark, loaded, rows, protocol, **named)


def summary_of(
    benchmark: Benchmark, loaded: Loaded, rows: list, protocol: str | None = None, reduction: str | None = None
) -> Summary:
    return summarize_benchmark(
        benchmark,
        loaded,
        rows,
        reduction=reduction or next(iter(benchmark.reductions)),
        protocol=protocol or next(iter(benchmark.protocols)),
    )
