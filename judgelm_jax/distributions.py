"""The joint distribution over score lines: what it says of scores and winners, and its mean over arrangements."""

import dataclasses
import decimal
from collections.abc import Sequence

import numpy as np

from judgelm_jax.arrangements import Arrangement
from judgelm_jax.errors import InputError

_MOST_VALUES = 40  # 1,600 lines for a pair


@dataclasses.dataclass(frozen=True)
class Distribution:
    """Over the scores of N answers, in the record's own order.

    `values`: float [G], the scores of the grid; `probabilities`: float64 [G, ..., G] (N axes), which sum to one;
    `covered_mass`: the probability that the judge writes a line of the grid at all, before normalization.
    """

    values: np.ndarray
    probabilities: np.ndarray
    covered_mass: float

    def most_likely(self) -> tuple[float, ...]:
        """The scores of the most likely line."""
        place = np.unravel_index(int(np.argmax(self.probabilities)), self.probabilities.shape)
        return tuple(float(self.values[i]) for i in place)

    def expected_scores(self) -> list[float]:
        """The mean score of each answer."""
        axes = range(self.probabilities.ndim)
        return [float(self.probabilities.sum(axis=tuple(a for a in axes if a != axis)) @ self.values) for axis in axes]

    def outcomes(self) -> dict[str, float]:
        """The probability that answer k has the best score alone, under "k", and that the best is shared, under "0"."""
        count = self.probabilities.ndim
        scores = np.stack(np.meshgrid(*[self.values] * count, indexing="ij"))  # [N, G, ..., G]
        best = scores == scores.max(axis=0)
        alone = best.sum(axis=0) == 1
        wins = {str(k + 1): float(self.probabilities[best[k] & alone].sum()) for k in range(count)}
        return {"0": float(self.probabilities[~alone].sum()), **wins}

    def winner(self) -> int:
        """The most likely outcome, 0 for a tie; 0 also where two winners are equally likely."""
        outcomes = self.outcomes()
        most = max(outcomes.values())
        likely = [int(name) for name, value in outcomes.items() if value == most]
        return likely[0] if len(likely) == 1 else 0

    def entropy(self) -> float:
        """Nats, over lines."""
        positive = self.probabilities[self.probabilities > 0]
        return float(-(positive * np.log(positive)).sum())


def grid(text: str) -> tuple[str, ...]:
    """The scores of `--score_grid=FIRST:LAST:STEP`, as a judge writes them: `1:10:1` is 1, 2, ..., 10.

    Raises:
      InputError: not of this form, outside of 0..10, or more than 40 scores.
    """
    try:
        first, last, step = (decimal.Decimal(part) for part in text.split(":"))
        count = int((last - first) / step) + 1
        if not (0 <= first <= last <= 10 and step > 0 and 2 <= count <= _MOST_VALUES):
            raise ValueError
    except (ValueError, OverflowError, decimal.DecimalException) as error:
        raise InputError(
            f"--score_grid={text}: must be FIRST:LAST:STEP with 0 ≤ FIRST < LAST ≤ 10, for at most {_MOST_VALUES} scores"
        ) from error
    values = (first + step * number for number in range(count))
    return tuple(f"{value.normalize():f}" for value in values)


def from_log_probabilities(log_probabilities: np.ndarray, values: tuple[str, ...], order: Arrangement) -> Distribution:
    """Normalizes the log probabilities of all lines, the last score running fastest in the order that was shown, and puts them
    into the record's own order."""
    logs = np.asarray(log_probabilities, np.float64)
    largest = logs.max()
    weights = np.exp(logs - largest)
    shown = (weights / weights.sum()).reshape((len(values),) * len(order))  # an axis for each position
    own = shown.transpose([order.index(number) for number in range(1, len(order) + 1)])
    return Distribution(np.array(values, np.float64), own, float(np.exp(largest) * weights.sum()))


def mean(found: Sequence[Distribution]) -> Distribution:
    """The mean of distributions over one grid, all in the record's own order."""
    probabilities = np.sum([one.probabilities for one in found], axis=0) / len(found)
    return Distribution(found[0].values, probabilities, sum(one.covered_mass for one in found) / len(found))


def position_bias(forward: Distribution, reversed_: Distribution) -> float:
    """How much the place shown first is preferred in a pair, from -1 (always the second) to 1 (always the first).

    P(the answer shown first wins) - P(the one shown second wins), over both orders.
    """
    one, other = forward.outcomes(), reversed_.outcomes()
    return ((one["1"] - one["2"]) + (other["2"] - other["1"])) / 2
