"""The ablation of training techniques: judges trained with and without them, each judged without and with references.

Techniques are cumulative, as in JudgeLM (Zhu et al., arXiv 2310.17631): each has those before it. Every judge is measured in
both prompt formats, so two of the cells of each table are mismatches of format: trained without references and judged with
them, and the reverse.

**Intervals** are 95 % percentile intervals of a hierarchical bootstrap (Davison & Hinkley 1997, section 3.8): seeds are drawn
with replacement, then records within each drawn seed, so that an interval covers another training as well as other questions.
A draw is common to all cells, so differences between cells are paired: the same seeds, the same records. With few seeds
such an interval is somewhat too short (by a factor of about √((n−1)/n) where seeds differ much), so each claim also says
whether it holds in every seed by itself. With one seed it covers other records only.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from judgelm_jax.evaluation.joining import Judged
from judgelm_jax.evaluation.position_bias import count_orders
from judgelm_jax.evaluation.statistics import CONFIDENCE, RESAMPLES, Interval, absolute_interval

NONE, SWAP, SUPPORT, DROP = "none", "+ swap augmentation", "+ reference support", "+ reference drop"
TECHNIQUES = (NONE, SWAP, SUPPORT, DROP)


class Cell(NamedTuple):
    """A judge trained with `technique` (and those before it), judged with or without reference."""

    technique: str
    reference: bool


CELLS = tuple(Cell(technique, reference) for technique in TECHNIQUES for reference in (False, True))
# The prompt format in which each technique was not trained.
MISMATCHED = (Cell(NONE, True), Cell(SWAP, True), Cell(SUPPORT, False))

Winners = Sequence[tuple[int | None, int | None]]


@dataclasses.dataclass(frozen=True)
class SeedOutcomes:
    """What the judges of one seed said about the same held-out pairs.

    `labels`: the right winners (1, 2, 0 for a tie); `needs_reference`: whether only the reference tells it; `winners`: for each
    cell the winner of each pair in the forward and in the reversed order, in the pair's own order, None without a verdict.
    """

    seed: int
    labels: Sequence[int]
    needs_reference: Sequence[bool]
    winners: Mapping[Cell, Winners]


# A metric is a sum over records divided by another, of columns of the table of a cell (see `_table`).
METRICS: dict[str, tuple[str, str]] = {
    "agreement": ("agrees", "all"),
    "agreement_reference_only": ("agrees_needing", "needing"),
    "consistency": ("same", "all"),
    "bias_first": ("first", "all"),
    "bias_second": ("second", "all"),
    "delta_bias": ("first_minus_second", "all"),  # its absolute value
}
_COLUMNS = ("all", "needing", "agrees", "agrees_needing", "same", "first", "second", "first_minus_second")


class Comparison(NamedTuple):
    """`metric` in cell `higher` minus that in `lower`."""

    metric: str
    higher: Cell
    lower: Cell


CLAIMS: dict[str, tuple[Comparison, ...]] = {
    "swap augmentation raises consistency": (Comparison("consistency", Cell(SWAP, False), Cell(NONE, False)),),
    "reference support raises agreement on reference-only facts": (
        Comparison("agreement_reference_only", Cell(SUPPORT, True), Cell(SWAP, False)),
    ),
    "a prompt format other than in training lowers agreement": (
        Comparison("agreement", Cell(SWAP, False), Cell(SWAP, True)),
        Comparison("agreement", Cell(SUPPORT, True), Cell(SUPPORT, False)),
    ),
    "reference drop restores both formats": (
        Comparison("agreement", Cell(DROP, False), Cell(SUPPORT, False)),
        Comparison("agreement", Cell(DROP, True), Cell(SWAP, True)),
        Comparison("consistency", Cell(DROP, False), Cell(SUPPORT, False)),
        Comparison("consistency", Cell(DROP, True), Cell(SWAP, True)),
    ),
}

Summary = dict[str, Any]


def summarize(runs: Sequence[SeedOutcomes], resamples: int = RESAMPLES) -> Summary:
    """Every metric of every cell and every claim, with intervals; fractions of 1.

    `cells`: a list of objects with `technique`, `reference`, `mismatched` and for each metric its value, `…_interval` and
    `…_by_seed`. `claims`: for each its `differences`, and whether it `holds`: all of their intervals lie above zero.

    Raises:
      ValueError: there are no runs, or a run lacks a cell or has other counts of winners than labels.
    """
    tables = [_table(run) for run in runs]  # each [records, cells, columns]
    if not tables:
        raise ValueError("an ablation needs the outcomes of at least one seed")
    drawn = hierarchical_sums(tables, resamples)  # [resamples, cells, columns]
    whole = np.sum([table.sum(axis=0) for table in tables], axis=0)
    by_seed = np.stack([table.sum(axis=0) for table in tables])
    cells = []
    for cell in CELLS:
        row: Summary = {**cell._asdict(), "mismatched": cell in MISMATCHED}
        for metric in METRICS:
            finish = abs if metric == "delta_bias" else float
            interval = _interval(_ratio(drawn, metric, cell))
            row[metric] = finish(float(_ratio(whole, metric, cell)))
            row[f"{metric}_interval"] = absolute_interval(interval) if metric == "delta_bias" else interval
            row[f"{metric}_by_seed"] = [finish(value) for value in _ratio(by_seed, metric, cell).tolist()]
        cells.append(row)
    claims = []
    for text, comparisons in CLAIMS.items():
        differences = [_difference(comparison, whole, drawn, by_seed) for comparison in comparisons]
        claims.append({"claim": text, "holds": all(one["interval"][0] > 0 for one in differences), "differences": differences})
    return {
        "seeds": [run.seed for run in runs],
        "records": [len(run.labels) for run in runs],
        "reference_only": [int(sum(run.needs_reference)) for run in runs],
        "resamples": resamples,
        "cells": cells,
        "claims": claims,
    }


def hierarchical_sums(tables: Sequence[np.ndarray], resamples: int, seed: int = 0) -> np.ndarray:
    """Sums over records of resampled tables: seeds drawn with replacement, then the records of each.

    Args:
      tables: one a seed, [records, ...].

    Returns float64 [resamples, ...]. Drawing records with replacement is drawing how often each counts, from a multinomial.
    """
    rng = np.random.default_rng(seed)
    sums = np.zeros((resamples, *tables[0].shape[1:]))
    for _ in tables:
        chosen = rng.integers(len(tables), size=resamples)
        for number, table in enumerate(tables):
            rows = np.flatnonzero(chosen == number)
            counts = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=len(rows))  # [rows, records]
            sums[rows] += np.tensordot(counts, table, axes=1)
    return sums


def save(summary: Summary, path: Path) -> None:
    """Writes the summary as JSON."""
    path.write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _table(run: SeedOutcomes) -> np.ndarray:
    """Float64 [records, cells, columns]: for each record and cell, what it adds to each column."""
    labels, needs = np.array(run.labels), np.array(run.needs_reference, bool)
    table = np.zeros((len(labels), len(CELLS), len(_COLUMNS)))
    for place, cell in enumerate(CELLS):
        winners = run.winners[cell]
        if len(winners) != len(labels):
            raise ValueError(f"seed {run.seed}, {cell}: {len(winners)} judgments for {len(labels)} labels")
        orders = [_orders(forward, back) for forward, back in winners]
        agrees = np.array([forward == label for (forward, _), label in zip(winners, run.labels, strict=True)])
        same, first, second = (np.array([order[column] for order in orders]) for column in range(3))
        values = (np.ones(len(labels)), needs, agrees, agrees & needs, same, first, second, first - second)
        table[:, place] = np.stack(values, axis=1)
    return table


def _orders(forward: int | None, back: int | None) -> tuple[int, int, int]:
    """Whether a pair got the same verdict in both orders, or the answer shown first or second was preferred in both."""
    judged = [Judged("unparsed" if winner is None else "ok", winner) for winner in (forward, back)]
    counts = count_orders(judged[:1], judged[1:], "wrong")
    return counts.same, counts.first, counts.second


def _ratio(sums: np.ndarray, metric: str, cell: Cell) -> np.ndarray:
    """A metric of sums [..., cells, columns]; 0 where nothing counts."""
    own = sums[..., CELLS.index(cell), :]
    above, below = (own[..., _COLUMNS.index(name)] for name in METRICS[metric])
    return above / np.maximum(below, 1)


def _difference(comparison: Comparison, whole: np.ndarray, drawn: np.ndarray, by_seed: np.ndarray) -> Summary:
    metric, higher, lower = comparison
    value, resampled, each = (_ratio(sums, metric, higher) - _ratio(sums, metric, lower) for sums in (whole, drawn, by_seed))
    return {
        "metric": metric,
        "higher": higher._asdict(),
        "lower": lower._asdict(),
        "difference": float(value),
        "interval": _interval(resampled),
        "by_seed": each.tolist(),
    }


def _interval(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
