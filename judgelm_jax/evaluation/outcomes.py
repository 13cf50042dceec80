"""What a judgment counts as, and the share of records that do."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from judgelm_jax.evaluation.joining import Judged
from judgelm_jax.evaluation.statistics import proportion_interval

UNPARSED_POLICIES = ("wrong", "exclude", "tie")

Summary = dict[str, Any]
Clusters = Sequence[Hashable]


def policy_of(parser: str, unparsed: str) -> str:
    """What a judgment without a winner counts as."""
    return "tie" if parser == "upstream" else unparsed


def outcome(judged: Judged, policy: str) -> int | str | None:
    """The winner that counts: 1, 2, 0, None for none, `excluded` where the record does not count."""
    if judged.winner is not None:
        return judged.winner
    return 0 if policy == "tie" else "excluded" if policy == "exclude" else None


def share(name: str, hits: np.ndarray | Sequence[float], clusters: Clusters) -> Summary:
    """A fraction and its interval, under `name` and `name_interval`; None where nothing counts."""
    value = float(np.mean(hits)) if len(hits) else None
    return {name: value, f"{name}_interval": proportion_interval(hits, clusters)}
