"""Keep only sure verdicts: a threshold above which they are wrong at most so often, with a guarantee for finite samples.

The question is that of selective conformal judging (arXiv 2602.13110). The guarantee here is that of Learn then Test (arXiv
2110.01052): with 95 % confidence over the labelled sample, the error among the verdicts kept is at most the wished one.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import Joined, Prediction
from judgelm_jax.evaluation.outcomes import Summary, outcome
from judgelm_jax.evaluation.statistics import CONFIDENCE

_LEVELS = 10  # shares of the records that may be kept: 10 %, 20 %, … 100 %


def keep_below(
    sureness: Sequence[float], wrong: Sequence[bool], clusters: Sequence[Hashable], risk: float, seed: int = 0
) -> tuple[float, float, float] | None:
    """The lowest threshold of sureness at which the verdicts kept (as sure or surer) are wrong at a rate of at most `risk`.

    Thresholds are the deciles of the sureness, tested from the surest down by an exact binomial test each. The 5 % of all tests
    together are spread evenly, and what a test that succeeds was given goes to the next (the fallback procedure, Wiens 2003).
    Of each question one record, drawn at random, is tested: records of a question are not independent.

    Returns the threshold, the share of all records that it keeps, and their observed error; None where no threshold can be
    guaranteed.
    """
    from scipy.stats import binom

    sure, error = np.asarray(sureness, np.float64), np.asarray(wrong, bool)
    order = np.random.default_rng(seed).permutation(len(sure))
    one_each = {clusters[place]: place for place in order}
    tested = np.array(sorted(one_each.values()), np.int64)
    found = None
    budget = 0.0
    for threshold in _thresholds(sure):
        budget += (1 - CONFIDENCE) / _LEVELS
        kept = tested[sure[tested] >= threshold]
        if binom.cdf(int(error[kept].sum()), len(kept), risk) <= budget and len(kept):
            found = threshold
        else:
            budget = 0.0
    if found is None:
        return None
    chosen = sure >= found
    return float(found), float(chosen.mean()), float(error[chosen].mean())


def risk_summary(joined: Joined, policy: str, risk: float) -> Summary:
    """`target`, `signal` (`probability` of the winner, or `score_gap`), and `threshold`, `coverage`, `error`.

    `threshold` and `error` are None where no threshold can be guaranteed. A verdict without a winner is never kept.

    Raises:
      InputError: no labels, or the judgments do not say how sure they are.
    """
    if not joined.labels:
        raise InputError("--risk needs --labels: the error is measured on them")
    rows = [
        (row, label, cluster)
        for row, label, cluster in zip(joined.predictions, joined.labels, joined.clusters(), strict=True)
        if outcome(row.headline, policy) != "excluded"
    ]
    with_probabilities = all(row.probabilities is not None for row, _, _ in rows if row.headline.winner is not None)
    signal = "probability" if with_probabilities else "score_gap"
    sure = [_sureness(row, signal) for row, _, _ in rows]
    wrong = [outcome(row.headline, policy) != label for row, label, _ in rows]
    found = keep_below(sure, wrong, [cluster for _, _, cluster in rows], risk)
    threshold, coverage, error = found if found is not None else (None, 0.0, None)
    return {
        "target": risk,
        "confidence": CONFIDENCE,
        "signal": signal,
        "threshold": threshold,
        "coverage": coverage,
        "error": error,
    }


def _thresholds(sure: np.ndarray) -> list[float]:
    """From the surest down; verdicts without a winner lie below all of them."""
    finite = sure[np.isfinite(sure)]
    if len(finite) == 0:
        return []
    levels = [1 - level / _LEVELS for level in range(1, _LEVELS + 1)]
    return sorted({float(value) for value in np.quantile(finite, levels, method="lower")}, reverse=True)


def _sureness(row: Prediction, signal: str) -> float:
    winner = row.headline.winner
    if winner is None:
        return float("-inf")
    if signal == "probability":
        assert row.probabilities is not None
        return row.probabilities[{1: 0, 0: 1, 2: 2}[winner]]
    if row.scores is None:
        raise InputError("--risk needs probabilities or scores in the judgments; judge with --mode=distribution")
    return abs(row.scores[0] - row.scores[1])
