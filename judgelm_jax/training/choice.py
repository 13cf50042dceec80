"""Which step of a run is left as its model: the best on the held-out records, where a difference is more than noise.

The first step that is measured is chosen. A later one takes its place where it is better than the one chosen so far and the
95 % interval of the difference excludes zero; the difference is taken record by record, since both steps were measured on the
same records, and records of one question count as one draw. Small improvements add up: the comparison is with what was
chosen, not with the step before.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from judgelm_jax.evaluation import statistics

CONFIDENCE = 0.95

LOSS, AGREEMENT, LAST = "loss", "agreement", "last"


@dataclasses.dataclass(frozen=True)
class Measured:
    """A step on the held-out records.

    `figures`: what is told of it. Of each record, `amounts`: what is summed (nats, or 1 where the judge agrees with the
    teacher), `weights`: over how much (target tokens, or 1), `questions`: whose record it is. What the step is judged by is
    Σ amounts / Σ weights.
    """

    figures: dict[str, Any]
    amounts: np.ndarray  # float64 [N]
    weights: np.ndarray  # float64 [N]
    questions: np.ndarray  # [N]


@dataclasses.dataclass(frozen=True)
class Choice:
    """The step chosen so far; JSON values, so that a run that goes on can take it up.

    `why` says what spoke for it, and what against the last step that did not take its place.
    """

    step: int
    by: str  # `loss` or `agreement`
    value: float
    figures: dict[str, Any]
    reason: str
    refused: str
    amounts: list[float]

    @property
    def why(self) -> str:
        """In a line."""
        return "; ".join(filter(None, (self.reason, self.refused)))

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Choice":
        """What `to_json` gave."""
        return Choice(**values)


def choose(before: Choice | None, step: int, measured: Measured, by: str) -> Choice | None:
    """The choice after a step was measured; `before` is that so far.

    A step whose value is not finite is never chosen: None where there is no other.
    """
    value = float(measured.amounts.sum() / measured.weights.sum())
    if not math.isfinite(value):
        if before is None:
            return None
        return dataclasses.replace(before, refused=f"that of step {step} is not finite")
    count, questions = len(measured.amounts), len(np.unique(measured.questions))
    told = f"held-out {by} {value:.4f} on {count} records of {questions} question{'s' if questions > 1 else ''}"
    fresh = Choice(step, by, value, measured.figures, told, "", measured.amounts.tolist())
    if before is None:
        return dataclasses.replace(fresh, reason=f"{told}, the first measured")
    low, high = _interval(by, measured.amounts - np.asarray(before.amounts), measured)
    interval = f"{value - before.value:+.4f} ({low:+.4f} to {high:+.4f})"
    if high < 0 if by == LOSS else low > 0:
        return dataclasses.replace(fresh, reason=f"{told}, {interval} against step {before.step}")
    better = value < before.value if by == LOSS else value > before.value
    why = "is inside the noise" if better else "is no improvement"
    return dataclasses.replace(before, refused=f"{interval} of step {step} against it {why}")


def _interval(by: str, differences: np.ndarray, measured: Measured) -> tuple[float, float]:
    if by == AGREEMENT:
        return statistics.difference_interval(differences, measured.questions.tolist()) or (-math.inf, math.inf)
    return ratio_interval(differences, measured.weights, measured.questions)


def ratio_interval(differences: np.ndarray, weights: np.ndarray, clusters: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of Σ differences / Σ weights, from records of which those of one cluster are one draw.

    The sandwich estimate of the standard error of a ratio (Liang & Zeger 1986) with the correction G / (G − 1) for G clusters,
    and Student's t with G − 1 degrees of freedom. Where all records are of one cluster each is taken for a draw of its own; one
    record alone says nothing: −∞ to ∞.
    """
    from scipy.stats import t

    groups = np.unique(clusters, return_inverse=True)[1]
    if groups.max() == 0:
        groups = np.arange(len(differences))
    count = groups.max() + 1
    if count < 2:
        return -math.inf, math.inf
    mean = differences.sum() / weights.sum()
    sums = np.bincount(groups, weights=differences - mean * weights)
    error = math.sqrt(count / (count - 1) * np.square(sums).sum()) / weights.sum()
    reach = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    return float(mean - reach), float(mean + reach)
