"""The joint distribution over score lines: what it says of scores and winners, and its mean over arrangements."""

import dataclasses
import decimal
from collections.abc import Sequence

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.prompts.arrangements import Arrangement

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
        """The most likely outcome; see `likeliest`."""
        return likeliest(self.outcomes())

    def entropy(self) -> float:
        """Nats, over lines."""
        return _entropy(self.probabilities)


@dataclasses.dataclass(frozen=True)
class Factors:
    """Over the scores of N answers, each taken as independent of the others: for lines that are too many to know them jointly.

    `values`: float [G]; `probabilities`: float64 [N, G] in the record's own order, each row of sum one; `covered_mass`: the
    product of the masses of the rows before normalization.
    """

    values: np.ndarray
    probabilities: np.ndarray
    covered_mass: float

    def most_likely(self) -> tuple[float, ...]:
        """The most likely score of each answer."""
        return tuple(float(self.values[place]) for place in self.probabilities.argmax(axis=1))

    def expected_scores(self) -> list[float]:
        """The mean score of each answer."""
        return [float(mean) for mean in self.probabilities @ self.values]

    def outcomes(self) -> dict[str, float]:
        """As `Distribution.outcomes`."""
        below = np.cumsum(self.probabilities, axis=1) - self.probabilities  # [N, G]: that the score of an answer is lower
        wins = {}
        for number in range(len(below)):
            others = np.delete(below, number, axis=0).prod(axis=0)
            wins[str(number + 1)] = float(self.probabilities[number] @ others)
        return {"0": max(0.0, 1 - sum(wins.values())), **wins}

    def winner(self) -> int:
        """The most likely outcome; see `likeliest`."""
        return likeliest(self.outcomes())

    def entropy(self) -> float:
        """Nats, over lines."""
        return _entropy(self.probabilities)


@dataclasses.dataclass(frozen=True)
class Outcomes:
    """Over the winners that labels name, of two answers in the record's own order.

    `probabilities`: float64 [3] of a tie, the first and the second, which sum to one; `covered_mass`: the probability that the
    judge writes one of the labels at all, before normalization.
    """

    probabilities: np.ndarray
    covered_mass: float

    def most_likely(self) -> None:
        """A label is no score."""

    def expected_scores(self) -> None:
        """A label is no score."""

    def outcomes(self) -> dict[str, float]:
        """As `Distribution.outcomes`."""
        return {str(winner): float(probability) for winner, probability in enumerate(self.probabilities)}

    def winner(self) -> int:
        """The most likely outcome; see `likeliest`."""
        return likeliest(self.outcomes())

    def entropy(self) -> float:
        """Nats, over outcomes."""
        return _entropy(self.probabilities)


AnyDistribution = Distribution | Factors | Outcomes


def _entropy(probabilities: np.ndarray) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


def likeliest(outcomes: dict[str, float]) -> int:
    """The most likely outcome, 0 for a tie; 0 also where two winners are equally likely."""
    most = max(outcomes.values())
    likely = [int(name) for name, value in outcomes.items() if value == most]
    return likely[0] if len(likely) == 1 else 0


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


def from_log_probabilities(
    log_probabilities: np.ndarray, values: tuple[str, ...], order: Arrangement
) -> Distribution | Factors:
    """Normalizes log probabilities and puts them into the record's own order.

    Args:
      log_probabilities: [lines], of all lines of the values, the last score running fastest in the order that was shown; or
        [N, G], of each score the values.
    """
    logs = np.asarray(log_probabilities, np.float64)
    places = [order.index(number) for number in range(1, len(order) + 1)]  # of each answer, where it was shown
    if logs.ndim == 2:
        largest = logs.max(axis=1, keepdims=True)
        weights = np.exp(logs - largest)
        masses = weights.sum(axis=1)
        covered = float(np.exp(largest.sum() + np.log(masses).sum()))
        return Factors(np.array(values, np.float64), (weights / masses[:, None])[places], covered)
    most = logs.max()
    weights = np.exp(logs - most)
    shown = (weights / weights.sum()).reshape((len(values),) * len(order))  # an axis for each position
    return Distribution(np.array(values, np.float64), shown.transpose(places), float(np.exp(most) * weights.sum()))


def from_labels(log_probabilities: np.ndarray, winners: Sequence[int], order: Arrangement) -> Outcomes:
    """The probabilities of the outcomes, from the log probabilities of the labels.

    `winners`: the position of the better answer that each label names, in the order that was shown; 0: a tie.
    """
    logs = np.asarray(log_probabilities, np.float64)
    most = logs.max()
    weights = np.exp(logs - most)
    summed = np.zeros(3)
    np.add.at(summed, [order[winner - 1] if winner else 0 for winner in winners], weights)
    return Outcomes(summed / weights.sum(), float(np.exp(most) * weights.sum()))


def mean(found: Sequence[AnyDistribution]) -> AnyDistribution:
    """The mean of distributions over one grid, all in the record's own order and of one form."""
    probabilities = np.sum([one.probabilities for one in found], axis=0) / len(found)
    covered = sum(one.covered_mass for one in found) / len(found)
    return dataclasses.replace(found[0], probabilities=probabilities, covered_mass=covered)


def position_bias(forward: AnyDistribution, reversed_: AnyDistribution) -> float:
    """How much the answer shown first is preferred in a pair, from -1 (always the second) to 1 (always the first).

    P(the answer shown first wins) - P(the one shown second wins), over both orders.
    """
    one, other = forward.outcomes(), reversed_.outcomes()
    return ((one["1"] - one["2"]) + (other["2"] - other["1"])) / 2
