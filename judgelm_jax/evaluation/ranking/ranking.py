"""The ranking of some models: strengths, win rates, who is above whom and how surely, cycles, what to compare next."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit
from scipy.stats import norm

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.ranking import covariates
from judgelm_jax.evaluation.ranking.bradley_terry import DRAWS, Fit, fit
from judgelm_jax.evaluation.ranking.comparisons import Comparison

_TAIL = 0.025  # on each side of a 95 % interval
_NEXT_BATCH = 10  # comparisons that a suggestion counts with
_NEXT_SHOWN = 5

Ranking = dict[str, Any]


def rank(rows: Sequence[Comparison], controls: Sequence[str] = (), seed: int = 0) -> Ranking:
    """The content of `ranking.json`.

    `models`: best first; `win_rate` counts a tie as half. `matrix`: A → B → the share that A won against B. `above`: A → B →
    the share of resamples in which A is stronger than B. `cyclic_share`: of three models that all met on one question,
    the share where each beat one of the others; None where there is no such three. `effects`: of the covariates, None
    where all pairs are alike.

    Raises:
      InputError: fewer than two models.
    """
    models = sorted({name for row in rows for name in (row.first, row.second)})
    if len(models) < 2:
        raise InputError(f"the judgments compare {len(models)} models; a ranking needs two or more with decided comparisons")
    number = {name: index for index, name in enumerate(models)}
    questions = {name: index for index, name in enumerate(dict.fromkeys(row.cluster for row in rows))}
    first = np.array([number[row.first] for row in rows])
    second = np.array([number[row.second] for row in rows])
    result = np.array([row.result for row in rows])
    clusters = np.array([questions[row.cluster] for row in rows])
    controlled = covariates.differences([row.texts for row in rows], controls) if controls else None
    found = fit(first, second, result, clusters, len(models), controlled, seed)
    rates, rate_draws = _win_rates(first, second, result, clusters, len(models), seed)
    order = np.argsort(-found.strengths, kind="stable")
    above = (found.strength_draws[:, :, None] > found.strength_draws[:, None, :]).mean(axis=0)  # [K, K]
    positions = 1 + (found.strength_draws[:, None, :] > found.strength_draws[:, :, None]).sum(axis=2)  # [DRAWS, K]
    counts = Counter(first.tolist()) + Counter(second.tolist())
    matrix, played = _matrix(first, second, result, len(models))
    return {
        "models": [
            {
                "name": models[k],
                "rank": place + 1,
                "rank_interval": [int(value) for value in np.quantile(positions[:, k], (_TAIL, 1 - _TAIL), method="nearest")],
                "strength": float(found.strengths[k]),
                "strength_interval": _interval(found.strength_draws[:, k]),
                "win_rate": float(rates[k]),
                "win_rate_interval": _interval(rate_draws[:, k]),
                "comparisons": counts[int(k)],
            }
            for place, k in enumerate(order)
        ],
        "matrix": _nested(models, order, matrix, played > 0),
        "compared": _nested(models, order, played, played > 0),
        "above": _nested(models, order, above, ~np.eye(len(models), dtype=bool)),
        "cyclic_share": cyclic_share(rows),
        "comparisons": len(rows),
        "clusters": len(questions),
        "bounded": found.bounded,
        "effects": {
            name: {"effect": float(found.effects[c]), "interval": _interval(found.effect_draws[:, c])}
            if controlled is not None and controlled[:, c].any()
            else None
            for c, name in enumerate(covariates.names(controls))
        },
        "next_comparisons": _next_comparisons(models, order, found),
    }


def cyclic_share(rows: Sequence[Comparison]) -> float | None:
    """Of all three models that were compared with each other on one question without a tie, the share in a circle."""
    results: dict[str, dict[tuple[str, str], float]] = defaultdict(dict)
    for row in rows:
        results[row.cluster][row.first, row.second] = row.result
        results[row.cluster][row.second, row.first] = 1 - row.result
    cycles = total = 0
    for won in results.values():
        names = sorted({name for pair in won for name in pair})
        for three in itertools.combinations(names, 3):
            sides = [won.get(pair) for pair in (three[:2], three[1:], (three[2], three[0]))]
            if None in sides or 0.5 in sides:
                continue
            total += 1
            cycles += len(set(sides)) == 1
    return cycles / total if total else None


def _win_rates(
    first: np.ndarray, second: np.ndarray, result: np.ndarray, clusters: np.ndarray, models: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The share of its comparisons that each model won [K], and draws of it [DRAWS, K], by question as those of strengths."""
    size = clusters.max() + 1
    won, played = np.zeros((size, models)), np.zeros((size, models))
    for model, value in ((first, result), (second, 1 - result)):
        np.add.at(won, (clusters, model), value)
        np.add.at(played, (clusters, model), 1)
    rng = np.random.default_rng(seed)
    weights = rng.standard_exponential((DRAWS, size))
    unit = played.sum(axis=0) / np.maximum((played > 0).sum(axis=0), 1)  # of one question, [K]
    wins, losses = unit * rng.gamma(0.5, size=(2, DRAWS, models))
    draws = (weights @ won + wins) / (weights @ played + wins + losses)
    return won.sum(axis=0) / played.sum(axis=0), draws


def _matrix(first: np.ndarray, second: np.ndarray, result: np.ndarray, models: int) -> tuple[np.ndarray, np.ndarray]:
    """The share that the row's model won against the column's, [K, K], and how often they met."""
    won, played = np.zeros((models, models)), np.zeros((models, models))
    for one, other, value in ((first, second, result), (second, first, 1 - result)):
        np.add.at(won, (one, other), value)
        np.add.at(played, (one, other), 1)
    return won / np.maximum(played, 1), played


def _next_comparisons(models: Sequence[str], order: np.ndarray, found: Fit) -> list[dict[str, Any]]:
    """The pairs for which ten comparisons more lower the chance of a wrong order most.

    A comparison of models with difference d adds the information p (1 - p), p = 1 / (1 + exp(-d)), to the variance v of
    d, as in a normal approximation: v' = v / (1 + m v p (1 - p)).
    """
    suggestions: list[dict[str, Any]] = []
    for better, worse in itertools.combinations(order, 2):
        draws = found.strength_draws[:, better] - found.strength_draws[:, worse]
        difference, variance = float(found.strengths[better] - found.strengths[worse]), float(draws.var())
        chance = expit(difference)
        information = float(chance * (1 - chance))
        after = variance / (1 + _NEXT_BATCH * variance * information)
        wrong = norm.sf(difference / np.sqrt(variance)) if variance > 0 else 0.0
        gain = wrong - (norm.sf(difference / np.sqrt(after)) if after > 0 else 0.0)
        suggestions.append(
            {
                "models": [models[better], models[worse]],
                "above": float((draws > 0).mean()),
                "gain": float(gain),
                "needed": _needed(difference, variance, information),
            }
        )
    suggestions.sort(key=lambda suggestion: -suggestion["gain"])
    return suggestions[:_NEXT_SHOWN]


def _needed(difference: float, variance: float, information: float) -> int | None:
    """How many comparisons more make the order sure at 97.5 %, if the strengths are as they look; None: no number does."""
    if difference <= 0:
        return None
    wanted = (difference / norm.ppf(1 - _TAIL)) ** 2
    return max(0, int(np.ceil((1 / wanted - 1 / variance) / information))) if variance > 0 else 0


def _interval(draws: np.ndarray) -> list[float]:
    return [float(value) for value in np.quantile(draws, (_TAIL, 1 - _TAIL))]


def _nested(models: Sequence[str], order: np.ndarray, values: np.ndarray, known: np.ndarray) -> dict[str, dict[str, float]]:
    return {models[a]: {models[b]: float(values[a, b]) for b in order if known[a, b]} for a in order}
