"""Strengths of models from comparisons (Bradley & Terry 1952), and draws that say how sure they are.

P(first wins) = 1 / (1 + exp(-(strength of first - strength of second + covariates · effects))). A tie is half a win for each.
Strengths are in log-odds, and their mean is 0.
"""

import dataclasses

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

DRAWS = 2000
_CHUNK = 2**24  # numbers of one intermediate array


@dataclasses.dataclass(frozen=True)
class Fit:
    """`strengths` float64 [K], `effects` float64 [covariates], and of the draws [DRAWS, K] and [DRAWS, covariates].

    `bounded`: some models never lost, or never won, against the others, so that no finite strengths are most likely: a virtual
    tie of each with the others bounds them.
    """

    strengths: np.ndarray
    effects: np.ndarray
    strength_draws: np.ndarray
    effect_draws: np.ndarray
    bounded: bool


@dataclasses.dataclass(frozen=True)
class _Cells:
    """Distinct outcomes: `design` [M, K + covariates], `won` [M], and how many each cluster has, sparse [G, M]."""

    design: np.ndarray
    won: np.ndarray
    counts: sparse.csr_matrix


def fit(
    first: np.ndarray,
    second: np.ndarray,
    result: np.ndarray,
    clusters: np.ndarray,
    models: int,
    covariates: np.ndarray | None = None,
    seed: int = 0,
) -> Fit:
    """Fits strengths and draws them again with the questions weighted at random.

    The draws are the Bayesian bootstrap (Rubin 1981) over clusters: a weight from the exponential distribution for each.
    Each model also plays one virtual game, spread over the others, whose weights are drawn as well; for two models
    and independent comparisons the draws of the win rate are then those of Jeffreys' Beta posterior, which has width
    where every comparison ended alike, too.

    Args:
      first, second: int [n], the models of each comparison, from 0.
      result: float [n], 1, 0 or 0.5 for the first.
      clusters: int [n], the question of each, from 0.
      models: K, at least 2.
      covariates: float [n, covariates], or None.
      seed: of the draws.
    """
    covariates = np.zeros((len(first), 0)) if covariates is None else covariates
    games = _games(first, second, result, clusters, models, covariates)
    cells, design, won = games.cells, games.design, games.won
    unit = _comparisons_per_cluster(first, second, clusters)
    share = 0.5 / (models - 1)  # of a virtual game, for each side of each pair
    found = _newton(design, won, games.weights, models)[0]

    rng = np.random.default_rng(seed)
    draws = []
    chunk = max(1, _CHUNK // len(won))
    for start in range(0, DRAWS, chunk):
        size = min(chunk, DRAWS - start)
        weights = rng.standard_exponential((size, cells.counts.shape[0])) @ cells.counts
        virtual = unit * rng.gamma(share, size=(size, len(won) - cells.counts.shape[1]))
        draws.append(_newton(design, won, np.concatenate([weights, virtual], axis=1), models))
    drawn = np.concatenate(draws)
    return Fit(found[:models], found[models:], drawn[:, :models], drawn[:, models:], games.bounded)


def point(first: np.ndarray, second: np.ndarray, result: np.ndarray, models: int) -> np.ndarray:
    """The strengths float64 [K] alone, of comparisons that are all of one question: as `fit` has them, without draws."""
    games = _games(first, second, result, np.zeros(len(first), int), models, np.zeros((len(first), 0)))
    return _newton(games.design, games.won, games.weights, models)[0]


@dataclasses.dataclass(frozen=True)
class _Games:
    """Observed cells and, behind them, virtual ones: `design` [M, K + covariates], `won` [M], `weights` [1, M] of the point
    estimate. `bounded`: the virtual ones weigh something."""

    cells: _Cells
    design: np.ndarray
    won: np.ndarray
    weights: np.ndarray
    bounded: bool


def _games(
    first: np.ndarray, second: np.ndarray, result: np.ndarray, clusters: np.ndarray, models: int, covariates: np.ndarray
) -> _Games:
    cells = _cells(first, second, result, clusters, models, covariates)
    virtual = _virtual(models, covariates.shape[1])
    bounded = not _strongly_connected(first, second, result, models)
    weight = 0.5 / (models - 1) * _comparisons_per_cluster(first, second, clusters) if bounded else 0.0
    observed = np.asarray(cells.counts.sum(axis=0)).reshape(1, -1)
    return _Games(
        cells,
        np.concatenate([cells.design, virtual.design]),
        np.concatenate([cells.won, virtual.won]),
        np.concatenate([observed, np.full((1, len(virtual.won)), weight)], axis=1),
        bounded,
    )


def _cells(
    first: np.ndarray, second: np.ndarray, result: np.ndarray, clusters: np.ndarray, models: int, covariates: np.ndarray
) -> _Cells:
    """A tie becomes half a win and half a loss; equal outcomes become one cell."""
    n = len(first)
    design = np.zeros((n, models + covariates.shape[1]))
    design[np.arange(n), first] = 1
    design[np.arange(n), second] = -1
    design[:, models:] = covariates
    rows = np.concatenate([np.column_stack([design, np.ones(n)]), np.column_stack([design, np.zeros(n)])])
    mass = np.concatenate([result, 1 - result])
    kept = mass > 0
    distinct, cell = np.unique(rows[kept], axis=0, return_inverse=True)
    counts = sparse.coo_matrix(
        (mass[kept], (np.concatenate([clusters, clusters])[kept], cell.ravel())), shape=(clusters.max() + 1, len(distinct))
    )
    return _Cells(distinct[:, :-1], distinct[:, -1], counts.tocsr())


def _virtual(models: int, covariates: int) -> _Cells:
    """A win and a loss for every two models."""
    one, other = np.triu_indices(models, 1)
    design = np.zeros((len(one), models + covariates))
    design[np.arange(len(one)), one], design[np.arange(len(one)), other] = 1, -1
    won = np.repeat([1.0, 0.0], len(one))
    return _Cells(np.concatenate([design, design]), won, sparse.csr_matrix((0, 2 * len(one))))


def _newton(design: np.ndarray, won: np.ndarray, weights: np.ndarray, models: int) -> np.ndarray:
    """The most likely parameters [R, p] for every row of `weights` [R, M], strengths with mean 0."""
    draws, size = len(weights), design.shape[1]
    products = (design[:, :, None] * design[:, None, :]).reshape(len(design), -1)  # [M, p * p]
    centre = np.zeros((size, size))
    centre[:models, :models] = 1  # the mean of the strengths is not determined by the data: it is 0
    ridge = 1e-9 * np.eye(size)  # an effect whose covariate never varies is 0
    found = np.zeros((draws, size))
    for _ in range(100):
        chance = expit(found @ design.T)  # [R, M]
        gradient = (weights * (won - chance)) @ design - found @ ridge
        curvature = ((weights * chance * (1 - chance)) @ products).reshape(draws, size, size) + centre + ridge
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        step *= np.minimum(1, 2 / np.maximum(np.abs(step).max(axis=1, keepdims=True), 1e-300))  # far out, the curvature lies
        found += step
        if np.abs(step).max() < 1e-10:
            break
    found[:, :models] -= found[:, :models].mean(axis=1, keepdims=True)
    return found


def _strongly_connected(first: np.ndarray, second: np.ndarray, result: np.ndarray, models: int) -> bool:
    """Whether every model has, by some chain, won against and lost to every other (Ford 1957)."""
    won = np.concatenate([first[result > 0], second[result < 1]])
    lost = np.concatenate([second[result > 0], first[result < 1]])
    graph = sparse.coo_matrix((np.ones(len(won)), (won, lost)), shape=(models, models))
    return connected_components(graph, directed=True, connection="strong", return_labels=False) == 1


def _comparisons_per_cluster(first: np.ndarray, second: np.ndarray, clusters: np.ndarray) -> float:
    """How often a pair of models is compared within a question, where it is: what one independent observation weighs."""
    pairs = np.column_stack([np.minimum(first, second), np.maximum(first, second), clusters])
    return len(pairs) / len(np.unique(pairs, axis=0))
