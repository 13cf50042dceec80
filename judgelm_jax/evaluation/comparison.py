"""Two judges, or two runs of one, on the same records: which is better, and could it be chance?"""

from collections.abc import Hashable, Sequence

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import Joined
from judgelm_jax.evaluation.outcomes import Summary, outcome, share
from judgelm_jax.evaluation.position_bias import order_changes
from judgelm_jax.evaluation.statistics import cluster_sums, difference_interval

_EXACT_UP_TO = 16  # questions whose signs are all tried
_PERMUTATIONS = 20_000


def compare(one: Joined, other: Joined, policy: str) -> Summary:
    """A paired comparison on the records that both have; differences are the first minus the second.

    `records` (both count), `same_verdict`; with labels `agreement`, `agreement_other`, `difference`, `only_this` and
    `only_other` (records that one alone has right), `mcnemar_p` (McNemar's exact test; it takes records as independent) and
    `cluster_p` (signs of whole questions exchanged); with both orders `consistency_difference`. Fractions have an
    `…_interval`.

    Raises:
      InputError: no record in common.
    """
    indices = {key: number for number, key in enumerate(other.keys)}
    pairs = [(number, indices[key]) for number, key in enumerate(one.keys) if key in indices]
    if not pairs:
        raise InputError("no record is in both judgment files; --against compares judgments of the same records")
    one, other = one.only([first for first, _ in pairs]), other.only([second for _, second in pairs])
    said = [
        (outcome(first.headline, policy), outcome(second.headline, policy))
        for first, second in zip(one.predictions, other.predictions, strict=True)
    ]
    counting = [number for number, winners in enumerate(said) if "excluded" not in winners]
    said = [said[number] for number in counting]
    clusters = [one.clusters()[number] for number in counting]
    summary: Summary = {"records": len(counting), "clusters": len(set(clusters))}
    summary |= share("same_verdict", [first == second for first, second in said], clusters)
    if one.labels is not None:
        labels = [one.labels[number] for number in counting]
        right = np.array(
            [[first == label, second == label] for (first, second), label in zip(said, labels, strict=True)], float
        )
        summary |= _difference(right.reshape(-1, 2), clusters)
    changes = [
        order_changes([row.forward], [row.reversed], policy)[0] if row.forward and row.reversed else "excluded"
        for joined in (one, other)
        for row in joined.predictions
    ]
    both = [
        (number, first, second)
        for number, (first, second) in enumerate(zip(changes[: len(pairs)], changes[len(pairs) :], strict=True))
        if "excluded" not in (first, second)
    ]
    if both:
        steps = [float(first == "same") - float(second == "same") for _, first, second in both]
        ends = difference_interval(steps, [one.clusters()[number] for number, _, _ in both])
        summary |= {"consistency_difference": float(np.mean(steps)), "consistency_difference_interval": ends}
    return summary


def mcnemar_p(only_this: int, only_other: int) -> float:
    """The exact two-sided p of McNemar's test: could chance put as many of the records on which they differ on one side?"""
    from scipy.stats import binomtest

    discordant = only_this + only_other
    return float(binomtest(only_this, discordant).pvalue) if discordant else 1.0


def sign_permutation_p(values: np.ndarray | Sequence[float], clusters: Sequence[Hashable], seed: int = 0) -> float:
    """The two-sided p of a mean of 0, by exchanging the two judges in whole questions.

    All exchanges are tried where at most 16 questions differ, else 20,000 random ones (the sample's own counts as one more).
    """
    sums = cluster_sums(values, clusters)
    sums = sums[sums != 0]
    if len(sums) == 0:
        return 1.0
    observed = abs(sums.sum()) - 1e-9
    if len(sums) <= _EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1)
        return float((np.abs(signs @ sums) >= observed).mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    for _ in range(20):
        signs = generator.choice([-1.0, 1.0], size=(_PERMUTATIONS // 20, len(sums)))
        extreme += int((np.abs(signs @ sums) >= observed).sum())
    return (1 + extreme) / (1 + _PERMUTATIONS)


def _difference(right: np.ndarray, clusters: Sequence[Hashable]) -> Summary:
    """Of `[N, 2]`: whether the first and the second agree with the label."""
    steps = right[:, 0] - right[:, 1]
    only_this, only_other = int((steps > 0).sum()), int((steps < 0).sum())
    return {
        **share("agreement", right[:, 0], clusters),
        **share("agreement_other", right[:, 1], clusters),
        "difference": float(steps.mean()) if len(steps) else None,
        "difference_interval": difference_interval(steps, clusters),
        "only_this": only_this,
        "only_other": only_other,
        "mcnemar_p": mcnemar_p(only_this, only_other),
        "cluster_p": sign_permutation_p(steps, clusters),
    }
