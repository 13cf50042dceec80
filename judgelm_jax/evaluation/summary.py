"""The whole summary of `judgelm-evaluate`: metrics, baselines, wins, groups, and another judge beside it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from judgelm_jax.evaluation.baselines import baselines, model_wins, wins
from judgelm_jax.evaluation.comparison import compare
from judgelm_jax.evaluation.decisions import compare_decisions
from judgelm_jax.evaluation.joining import Fields, Joined
from judgelm_jax.evaluation.metrics import summarize
from judgelm_jax.evaluation.outcomes import Summary, policy_of
from judgelm_jax.evaluation.people import kappa, with_people
from judgelm_jax.evaluation.prediction_powered import few_labels
from judgelm_jax.evaluation.scores import length_bias, score_correlation
from judgelm_jax.evaluation.selective import risk_summary
from judgelm_jax.evaluation.stability import stability

WITHOUT_GROUP = "(without)"


def full_summary(
    joined: Joined,
    fields: Fields,
    *,
    parser: str,
    unparsed: str,
    against: Joined | None = None,
    decisions: Mapping[str, Joined] | None = None,
    repeated: Sequence[Joined] = (),
    risk: float | None = None,
    width: float | None = None,
) -> Summary:
    """The form of `evaluate --json`.

    Beside `metrics.summarize`: `first_wins`, `second_wins`, `tie_rate`; `models` (see `baselines.model_wins`); `baselines`;
    `cluster_field`, and `without_cluster_field` of `looked_at` records that lack it; `groups`: the same figures for each value
    of the field `by` (records without it under `(without)`); `against`, see `comparison.compare`; `decisions`, see `decisions`;
    `kappa` and `people` (see `people`), `scores` and `length` (see `scores`); `stability` over `repeated` judgments;
    `few_labels` where only some judgments have labels (see `prediction_powered`); `risk` (see `selective`).
    """
    policy = policy_of(parser, unparsed)
    summary = _figures(joined, parser, unparsed)
    summary |= {
        "baselines": baselines(joined, policy),
        "models": model_wins(joined, policy),
        "people": with_people(joined, policy),
        "scores": score_correlation(joined),
        "length": length_bias(joined, policy),
        "cluster_field": fields.cluster,
        "without_cluster_field": sum(row.facts.cluster is None for row in joined.predictions),
        "looked_at": len(joined.predictions),
        "by": fields.group,
        "groups": {},
    }
    if fields.group is not None:
        members: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(joined.predictions):
            members[WITHOUT_GROUP if row.facts.group is None else row.facts.group].append(place)
        summary["groups"] = {group: _group(joined.only(places), parser, unparsed) for group, places in sorted(members.items())}
    if against is not None:
        summary["against"] = compare(joined, against, policy)
    if decisions:
        summary["decisions"] = compare_decisions(decisions, policy)
    if few := few_labels(joined, policy, width):
        summary["few_labels"] = few
    if risk is not None:
        summary["risk"] = risk_summary(joined, policy, risk)
    if repeated:
        summary["stability"] = stability([joined, *repeated], policy)
    return summary


def _figures(joined: Joined, parser: str, unparsed: str) -> Summary:
    policy = policy_of(parser, unparsed)
    return summarize(joined, parser=parser, unparsed=unparsed) | kappa(joined, policy) | wins(joined, policy)


def _group(joined: Joined, parser: str, unparsed: str) -> Summary:
    figures = _figures(joined, parser, unparsed)
    for about_the_files in ("parser", "unparsed_policy", "labels_dropped", "labels_out_of_range", "missing", "unlabelled"):
        del figures[about_the_files]
    return figures | {"baselines": baselines(joined, policy_of(parser, unparsed))}
