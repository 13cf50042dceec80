"""What the judge is to be held against: trivial judges, and how often each answer and each model wins."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable

import numpy as np

from judgelm_jax.evaluation.comparison import sign_permutation_p
from judgelm_jax.evaluation.joining import Joined
from judgelm_jax.evaluation.outcomes import Summary, outcome, share

_NAMES = {1: "first", 2: "second", 0: "tie"}


def baselines(joined: Joined, policy: str) -> Summary:
    """The agreement with the labels, on the records that count, of judges that do not read.

    `always_first`, `always_second`; `majority` (always the most common label, named in `majority_winner`, which it knows from
    these very labels); where answers stand beside the judgments `longer_answer` and `shorter_answer` in characters (a tie where
    both are as long). Each with `…_interval`. `best` names the best of them; `ahead_of_best` is how much more often the judge
    agrees on the same records, and `ahead_of_best_p` how often chance would give as much (`sign_permutation_p`). Empty without
    labels.
    """
    if not joined.labels:
        return {}
    clusters = joined.clusters()
    counting = [number for number, row in enumerate(joined.predictions) if outcome(row.headline, policy) != "excluded"]
    labels = {number: joined.labels[number] for number in counting}
    if not labels:
        return {}
    most = max((1, 2, 0), key=lambda winner: sum(label == winner for label in labels.values()))

    counted = [clusters[number] for number in labels]
    right: dict[str, np.ndarray] = {}  # whether each baseline agrees

    def agreement(name: str, says: Callable[[int], int]) -> Summary:
        right[name] = np.array([says(number) == label for number, label in labels.items()], float)
        return share(name, right[name], counted)

    summary = agreement("always_first", lambda number: 1) | agreement("always_second", lambda number: 2)
    summary |= agreement("majority", lambda number: most) | {"majority_winner": _NAMES[most]}
    lengths = {number: joined.predictions[number].facts.lengths for number in labels}
    if all(pair is not None for pair in lengths.values()):
        longer = {
            number: 0 if first == second else 1 if first > second else 2
            for number, pair in lengths.items()
            if pair is not None
            for first, second in [pair]
        }
        summary |= agreement("longer_answer", lambda number: longer[number])
        summary |= agreement("shorter_answer", lambda number: {0: 0, 1: 2, 2: 1}[longer[number]])
    best = max(right, key=lambda name: right[name].mean())
    judge = [outcome(joined.predictions[number].headline, policy) == label for number, label in labels.items()]
    ahead = np.array(judge, float) - right[best]
    p = sign_permutation_p(ahead, counted)
    return summary | {"best": best, "ahead_of_best": float(ahead.mean()), "ahead_of_best_p": p}


def wins(joined: Joined, policy: str) -> Summary:
    """How often the first answer, the second and neither wins, as shares of the records with a verdict."""
    rows = [
        (winner, cluster)
        for row, cluster in zip(joined.predictions, joined.clusters(), strict=True)
        if (winner := outcome(row.headline, policy)) in _NAMES
    ]
    clusters = [cluster for _, cluster in rows]
    summary: Summary = {}
    for winner, name in ((1, "first_wins"), (2, "second_wins"), (0, "tie_rate")):
        summary |= share(name, [said == winner for said, _ in rows], clusters)
    return summary


def model_wins(joined: Joined, policy: str) -> dict[str, Summary]:
    """For each model its `wins`, `ties`, `losses`, and `win_rate` (a tie counts half) with its interval; the best first.

    Only records that name two different models and have a verdict count.
    """
    results: dict[str, list[tuple[float, Hashable]]] = defaultdict(list)
    for row, cluster in zip(joined.predictions, joined.clusters(), strict=True):
        winner, models = outcome(row.headline, policy), row.facts.models
        if winner not in _NAMES or models is None or models[0] == models[1]:
            continue
        worth = {1: 1.0, 0: 0.5, 2: 0.0}[winner]
        results[models[0]].append((worth, cluster))
        results[models[1]].append((1 - worth, cluster))
    table = {}
    for model, rows in results.items():
        counts = Counter(worth for worth, _ in rows)
        table[model] = {
            **share("win_rate", [worth for worth, _ in rows], [cluster for _, cluster in rows]),
            "records": len(rows),
            "wins": counts[1.0],
            "ties": counts[0.5],
            "losses": counts[0.0],
        }
    return dict(sorted(table.items(), key=lambda item: (-item[1]["win_rate"], item[0])))
