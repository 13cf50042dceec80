"""Judged again: how often does a judge that samples (temperature above 0) name the same winner?"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import Joined
from judgelm_jax.evaluation.outcomes import Summary, outcome, share


def stability(runs: Sequence[Joined], policy: str) -> Summary:
    """Several judgments of the same records, such as by `--seed`, compared on the records that all have.

    `same_winner`: the share of records with one winner in all runs; `pairwise`: the share of two runs that name the same one,
    mean over records; with labels `agreement_by_run`, and `agreement_of_vote` (of the most common winner, a tie where two are
    as common).

    Raises:
      InputError: no record is in all runs.
    """
    held = [set(run.keys) for run in runs[1:]]
    keys = [key for key in runs[0].keys if all(key in others for others in held)]
    if not keys:
        raise InputError("no record is in all judgment files; --repeated takes judgments of the same records")
    aligned = []
    for run in runs:
        indices = {key: index for index, key in enumerate(run.keys)}
        aligned.append(run.only([indices[key] for key in keys]))
    said = [[outcome(run.predictions[number].headline, policy) for run in aligned] for number in range(len(keys))]
    clusters = aligned[0].clusters()
    counts = [Counter(record) for record in said]
    pairs = len(runs) * (len(runs) - 1)
    same = [sum(count * (count - 1) for count in record.values()) / pairs for record in counts]
    summary: Summary = {"runs": len(runs), "records": len(keys)}
    summary |= share("same_winner", [len(record) == 1 for record in counts], clusters) | share("pairwise", same, clusters)
    labels = aligned[0].labels
    if labels is None:
        return summary
    by_run = [
        float(np.mean([record[run] == label for record, label in zip(said, labels, strict=True)])) for run in range(len(runs))
    ]
    votes = [_vote(record) == label for record, label in zip(counts, labels, strict=True)]
    return summary | {"agreement_by_run": by_run} | share("agreement_of_vote", votes, clusters)


def _vote(counts: Counter) -> object:
    most = counts.most_common(2)
    return 0 if len(most) == 2 and most[0][1] == most[1][1] else most[0][0]
