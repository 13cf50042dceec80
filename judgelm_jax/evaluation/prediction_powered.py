"""Few labels and many judgments: what people would say of all records, by prediction-powered inference (PPI++).

The judge's verdicts on all records are corrected by how far they miss the labels on those that have one (arXiv 2311.01453). It
holds whatever the judge is worth; a better judge makes the interval narrower. The records with labels must be a random part of
all.
"""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np

from judgelm_jax.evaluation.joining import Joined, Prediction
from judgelm_jax.evaluation.outcomes import Summary, outcome
from judgelm_jax.evaluation.statistics import CONFIDENCE, Interval, cluster_sums, effective_count, proportion_interval

# With fewer questions of the rarer outcome among the labels the variance cannot be told: the labels alone are used.
_FEWEST = 5.0


@dataclasses.dataclass(frozen=True)
class Corrected:
    """`value` and `interval` of the mean; `weight` from 0 (labels alone) to 1 (the judge counts in full), the λ of the paper.

    `worth`: by how many times more labels alone would give so narrow an interval. `error` is the standard error.
    """

    value: float
    interval: Interval
    weight: float
    worth: float
    error: float


def corrected_mean(
    labels: Sequence[float],
    judged: Sequence[float],
    clusters: Sequence[Hashable],
    judged_only: Sequence[float],
    clusters_only: Sequence[Hashable],
    weight: float | None = None,
) -> Corrected | None:
    """The mean that labels (from 0 to 1) would have on all records.

    Args:
      labels, judged, clusters: of the records with labels: label, what the judge says, question.
      judged_only, clusters_only: of the records without.
      weight: λ; the one that makes the variance between questions least where None (equation 6 of the paper, with clusters).

    Returns None without labels. The interval is Student's with the variance between questions, cut to 0 and 1.
    """
    from scipy.stats import t

    truth, said, rest = (np.asarray(values, np.float64) for values in (labels, judged, judged_only))
    if len(truth) == 0:
        return None
    alone = proportion_interval(truth, clusters) or (0.0, 1.0)
    # Influence of each record on the mean of labels, and on the difference of the judge's means that corrects it.
    by_label = np.concatenate([(truth - truth.mean()) / len(truth), np.zeros(len(rest))])
    by_judge = np.concatenate([(said - said.mean()) / len(said), -(rest - rest.mean()) / len(rest) if len(rest) else rest])
    sums = cluster_sums(np.stack([by_label, by_judge], axis=1), [*clusters, *clusters_only])
    spread = float((sums[:, 1] ** 2).sum())
    if weight is None:
        weight = float(np.clip((sums[:, 0] * sums[:, 1]).sum() / spread, 0, 1)) if spread > 0 and len(rest) else 0.0
    questions = len(cluster_sums(truth, clusters))
    rarer = min(effective_count(cluster_sums(part, clusters)) for part in (truth, 1 - truth))
    labels_error = float(np.sqrt((sums[:, 0] ** 2).sum() * questions / max(questions - 1, 1)))
    if weight == 0 or rarer < _FEWEST:
        return Corrected(float(truth.mean()), alone, 0.0, 1.0, labels_error)
    value = float(truth.mean() + weight * (rest.mean() - said.mean()))
    squares = float(((sums[:, 0] - weight * sums[:, 1]) ** 2).sum())
    error = float(np.sqrt(squares * questions / (questions - 1)))
    half = float(t.ppf((1 + CONFIDENCE) / 2, questions - 1)) * error
    value = min(max(value, 0.0), 1.0)
    worth = (labels_error / error) ** 2 if error > 0 else 1.0
    return Corrected(value, (max(0.0, value - half), min(1.0, value + half)), weight, worth, error)


def labels_for_width(corrected: Corrected, labelled: int, width: float) -> int:
    """About how many labels in all give an interval of this width, as long as they are few beside the judged records.

    The variance falls with the number of labels; what the judged records themselves leave open is left out.
    """
    now = corrected.interval[1] - corrected.interval[0]
    return max(labelled, int(np.ceil(labelled * (now / width) ** 2)))


def few_labels(joined: Joined, policy: str, width: float | None = None) -> Summary:
    """Win rates and agreement as labels on all records would give them; empty where all records have a label, or none has.

    `first_wins` (a tie counts half) and, by name, the win rate of each model in `models`; `agreement`, where the judge says how
    sure it is (`probabilities`, else whether both orders agree). Each with `…_interval`, `…_labels_only_interval`, `…_worth`,
    `…_weight`, and with a wished `width` `…_labels_needed`.
    """
    if not joined.labels or not joined.unlabelled_predictions:
        return {}
    labels, rows, rest = joined.labels, joined.predictions, joined.unlabelled_predictions
    clusters = joined.clusters()
    clusters_only: list[Hashable] = [
        ("unlabelled", place) if row.facts.cluster is None else row.facts.cluster for place, row in enumerate(rest)
    ]
    worth_of_label = [{1: 1.0, 0: 0.5, 2: 0.0}[label] for label in labels]
    summary: Summary = {"labelled": len(rows), "unlabelled": len(rest)}
    said, said_only = [_first_wins(row, policy) for row in rows], [_first_wins(row, policy) for row in rest]
    summary |= _named("first_wins", worth_of_label, said, clusters, said_only, clusters_only, width)
    models: dict[str, Summary] = {}
    for model in sorted({name for row in rows for name in row.facts.models or ()}):
        own, others = _sides(rows, model), _sides(rest, model)
        models[model] = _named(
            "win_rate",
            [worth_of_label[place] if first else 1 - worth_of_label[place] for place, first in own],
            [said[place] if first else 1 - said[place] for place, first in own],
            [clusters[place] for place, _ in own],
            [said_only[place] if first else 1 - said_only[place] for place, first in others],
            [clusters_only[place] for place, _ in others],
            width,
        )
    if models:
        summary["models"] = models
    sure, sure_only = [_sureness(row) for row in rows], [_sureness(row) for row in rest]
    if None not in sure and None not in sure_only:
        hits = [float(outcome(row.headline, policy) == label) for row, label in zip(rows, labels, strict=True)]
        known, known_only = [value or 0.0 for value in sure], [value or 0.0 for value in sure_only]
        summary |= _named("agreement", hits, known, clusters, known_only, clusters_only, width)
    return summary


def _named(
    name: str,
    labels: Sequence[float],
    judged: Sequence[float],
    clusters: Sequence[Hashable],
    judged_only: Sequence[float],
    clusters_only: Sequence[Hashable],
    width: float | None,
) -> Summary:
    corrected = corrected_mean(labels, judged, clusters, judged_only, clusters_only)
    if corrected is None:
        return {name: None, f"{name}_interval": None}
    summary: Summary = {
        name: corrected.value,
        f"{name}_interval": corrected.interval,
        f"{name}_labels_only": float(np.mean(labels)),
        f"{name}_labels_only_interval": proportion_interval(labels, clusters),
        f"{name}_judge_only": float(np.mean([*judged, *judged_only])),
        f"{name}_worth": corrected.worth,
        f"{name}_weight": corrected.weight,
    }
    if width is not None:
        summary[f"{name}_labels_needed"] = labels_for_width(corrected, len(labels), width)
    return summary


def _first_wins(row: Prediction, policy: str) -> float:
    """How much the judge gives to the first answer; one half where it says nothing."""
    if row.probabilities is not None:
        first, tie, _ = row.probabilities
        return first + tie / 2
    winner = outcome(row.headline, policy)
    return {1: 1.0, 2: 0.0}.get(winner, 0.5) if isinstance(winner, int) else 0.5


def _sureness(row: Prediction) -> float | None:
    """The judge's own probability that its verdict is right, or whether both orders agree; None where it says neither."""
    if row.headline.winner is None:
        return 0.0
    if row.probabilities is not None:
        return row.probabilities[{1: 0, 0: 1, 2: 2}[row.headline.winner]]
    if row.forward is None or row.reversed is None:
        return None
    return float(row.forward.winner == row.reversed.winner)


def _sides(rows: Sequence[Prediction], model: str) -> list[tuple[int, bool]]:
    """Where the model is compared with another, and whether its answer is the record's first."""
    return [
        (place, row.facts.models[0] == model)
        for place, row in enumerate(rows)
        if row.facts.models is not None and model in row.facts.models and row.facts.models[0] != row.facts.models[1]
    ]
