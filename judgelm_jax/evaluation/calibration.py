"""Probabilities that mean what they say: a temperature and a tie threshold, fitted on labels, applied to judgments."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Hashable, Sequence
from pathlib import Path

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.outcomes import Summary
from judgelm_jax.evaluation.statistics import mean_interval
from judgelm_jax.records.json_lines import Record

BINS = 10
_OUTCOMES = (1, 0, 2)  # columns of the arrays here
_LEAST = 1e-9  # a probability of 0 cannot be scaled


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Log probabilities are divided by `temperature`; the winner is a tie where those of first and second then differ by less
    than `tie_threshold`, else the likelier of the two. None: the likeliest of all three, as without calibration.
    """

    temperature: float
    tie_threshold: float | None


def read_calibration(path: Path) -> Calibration:
    """Reads `calibration.json` of `judgelm-calibrate`.

    Raises:
      InputError: it is not such a file.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON; give the output of judgelm-calibrate") from error
    temperature = values.get("temperature") if isinstance(values, dict) else None
    plain = isinstance(temperature, (int, float)) and not isinstance(temperature, bool)
    if temperature is None or not plain or not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"{path}: temperature is {temperature!r}; it is a number above 0, as judgelm-calibrate writes it")
    threshold = values.get("tie_threshold")
    if threshold is not None and (type(threshold) not in (int, float) or not 0 <= threshold <= 1):
        raise InputError(f"{path}: tie_threshold is {threshold!r}; it is null or a number from 0 to 1")
    return Calibration(float(temperature), None if threshold is None else float(threshold))


def apply(judgment: Record, calibration: Calibration) -> Record:
    """A judgment with calibrated `probabilities` and the `winner` that follows, `forward` and `reversed` too; a new record.

    `consistent` follows the two new winners; `calibrated` is true. Scores and texts stay. A judgment without probabilities
    (one that overflowed) stays as it is.

    Raises:
      InputError: a judgment with a winner but no probabilities; the message has no place.
    """
    if judgment.get("probabilities") is None:
        if judgment.get("winner") is not None:
            raise InputError("the judgment has no probabilities; calibration needs --mode=distribution")
        return judgment
    row = judgment | _calibrated(judgment, calibration) | {"calibrated": True}
    for side in ("forward", "reversed"):
        single = row.get(side)
        if isinstance(single, dict) and single.get("probabilities") is not None:
            row[side] = single | _calibrated(single, calibration)
    if "consistent" in row and isinstance(row.get("forward"), dict) and isinstance(row.get("reversed"), dict):
        row["consistent"] = row["forward"]["winner"] is not None and row["forward"]["winner"] == row["reversed"]["winner"]
    return row


def scale(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities `[N, 3]` to the power 1 / temperature, normalized."""
    logs = np.log(np.maximum(probabilities, _LEAST)) / temperature
    weights = np.exp(logs - logs.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def winners(probabilities: np.ndarray, tie_threshold: float | None) -> np.ndarray:
    """The winner (1, 0, 2) by each row `[N, 3]` of first, tie, second; a tie also where the likeliest are equally likely."""
    first, tie, second = probabilities.T
    if tie_threshold is not None:
        return np.where(np.abs(first - second) < tie_threshold, 0, np.where(first > second, 1, np.where(second > first, 2, 0)))
    best = np.maximum(first, second)
    return np.where((tie >= best) | (first == second), 0, np.where(first > second, 1, 2))


def fit(probabilities: np.ndarray, labels: Sequence[int]) -> Calibration:
    """The temperature with the least log loss on the labels (Guo et al. 2017), then the tie threshold with the most agreement.

    Without a threshold that agrees on more records than the likeliest outcome does, there is none. Of thresholds that do as
    well the smallest is taken.
    """
    from scipy.optimize import minimize_scalar

    columns = _columns(labels)

    def loss(log_temperature: float) -> float:
        return log_loss(scale(probabilities, math.exp(log_temperature)), columns)

    best = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 1e-6})
    temperature = math.exp(float(best.x)) if best.fun < loss(0.0) else 1.0
    scaled = scale(probabilities, temperature)
    truth = np.asarray(labels)
    gaps = np.unique(np.abs(scaled[:, 0] - scaled[:, 2]))
    between = [0.0, *((gaps[1:] + gaps[:-1]) / 2).tolist(), 1.0]
    hits = [int((winners(scaled, threshold) == truth).sum()) for threshold in between]
    most = int(np.argmax(hits))
    natural = int((winners(scaled, None) == truth).sum())
    return Calibration(temperature, between[most] if hits[most] > natural else None)


def is_always_right(probabilities: np.ndarray, labels: Sequence[int]) -> bool:
    """Whether each label is the likeliest outcome. Then the lower the temperature the less the loss, and none is the best."""
    chosen = probabilities[np.arange(len(labels)), _columns(labels)]
    return bool((chosen[:, None] > probabilities).sum() == 2 * len(labels))


def log_loss(probabilities: np.ndarray, columns: np.ndarray) -> float:
    """The mean of -log P(label), in nats."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(columns)), columns], _LEAST)).mean())


def brier(probabilities: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The Brier score of each record `[N]`, from 0 to 2: the squared distance of the probabilities from the label."""
    return ((probabilities - np.eye(3)[columns]) ** 2).sum(axis=1)


def reliability(sure: np.ndarray, right: np.ndarray) -> list[Summary]:
    """By tenths of the probability of the winner: records, mean probability, share that is right."""
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    return [
        {
            "from": place / BINS,
            "to": (place + 1) / BINS,
            "records": int(chosen.sum()),
            "probability": float(sure[chosen].mean()),
            "right": float(right[chosen].mean()),
        }
        for place in range(BINS)
        if (chosen := places == place).any()
    ]


def expected_calibration_error(table: Sequence[Summary]) -> float:
    """The mean distance of probability and share that is right, over the records of a `reliability` table (Naeini 2015)."""
    total = sum(row["records"] for row in table)
    return sum(row["records"] * abs(row["probability"] - row["right"]) for row in table) / total


def measure(
    probabilities: np.ndarray, labels: Sequence[int], clusters: Sequence[Hashable], calibration: Calibration
) -> Summary:
    """Agreement, log loss, Brier score, calibration error and reliability of calibrated probabilities on labels."""
    scaled, columns = scale(probabilities, calibration.temperature), _columns(labels)
    said = winners(scaled, calibration.tie_threshold)
    right = said == np.asarray(labels)
    scores = brier(scaled, columns)
    table = reliability(scaled[np.arange(len(said)), _columns(said)], right)
    return {
        "agreement": float(right.mean()),
        "agreement_interval": mean_interval(right, clusters),
        "log_loss": log_loss(scaled, columns),
        "brier": float(scores.mean()),
        "brier_interval": mean_interval(scores, clusters, (0.0, 2.0)),
        "ece": expected_calibration_error(table),
        "reliability": table,
    }


def held_out(cluster: Hashable) -> bool:
    """Whether a question belongs to the half on which the calibration is measured; by its name alone, so runs agree."""
    return hashlib.blake2b(repr(cluster).encode(), digest_size=1).digest()[0] % 2 == 1


def _columns(outcomes: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.array([_OUTCOMES.index(int(winner)) for winner in outcomes])


def _calibrated(row: Record, calibration: Calibration) -> Record:
    values = np.array([[row["probabilities"]["1"], row["probabilities"]["0"], row["probabilities"]["2"]]], np.float64)
    scaled = scale(values, calibration.temperature)
    first, tie, second = (float(value) for value in scaled[0])
    return {
        "probabilities": {"0": tie, "1": first, "2": second},
        "winner": int(winners(scaled, calibration.tie_threshold)[0]),
    }
