"""Three ways to make a winner of a distribution over scores, side by side on the same judgments."""

from collections.abc import Mapping
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.comparison import compare
from judgelm_jax.evaluation.joining import DECISIONS, Fields, Joined, join
from judgelm_jax.evaluation.outcomes import Summary

_DIFFERENCES = (("mean", "mode"), ("mean", "winner"), ("mode", "winner"))


def join_decisions(labels: Path, predictions: Path, reversed_predictions: Path | None, fields: Fields) -> dict[str, Joined]:
    """The judgments beside their labels, once for each decision; nothing where not all judgments have distributions."""
    try:
        return {
            name: join(labels, predictions, reversed_predictions, "tolerant", decide=name, fields=fields)
            for name in ("mean", *(name for name in DECISIONS if name != "mean"))
        }
    except InputError:  # nobody asked for it: judgments of another mode, or of another tool, have no expected scores
        return {}


def compare_decisions(joined: Mapping[str, Joined], policy: str) -> Summary:
    """The agreement of each decision, and paired differences: `mean_minus_mode` and so on, with intervals by question."""
    summary: Summary = {}
    for one, other in _DIFFERENCES:
        paired = compare(joined[one], joined[other], policy)
        names = {"agreement": one, "agreement_other": other, "difference": f"{one}_minus_{other}", "cluster_p": None}
        for field, name in names.items():
            if name is None:
                summary[f"{one}_minus_{other}_p"] = paired[field]
            else:
                summary |= {name: paired[field], f"{name}_interval": paired[f"{field}_interval"]}
    order = [*DECISIONS, *(f"{one}_minus_{other}" for one, other in _DIFFERENCES)]
    return {field: summary[field] for name in order for field in (name, f"{name}_interval", f"{name}_p") if field in summary}
