"""The orders in which the answers of a record are shown, and what the scores of several orders say together.

An arrangement of N answers is a tuple of their numbers (from 1) in the order in which the judge sees them. Those of two answers
have names: `forward` and `reversed`.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from typing import Any

from judgelm_jax.errors import InputError

Arrangement = tuple[int, ...]

FORWARD: Arrangement = (1, 2)
REVERSED: Arrangement = (2, 1)
_NAMES = {FORWARD: "forward", REVERSED: "reversed"}
_OF_TWO = {"forward": (FORWARD,), "reversed": (REVERSED,), "both": (FORWARD, REVERSED)}
ALL = "all"
_MOST_ANSWERS_OF_ALL = 4  # 24 arrangements


def name_of(arrangement: Arrangement) -> str:
    """`forward`, `reversed`, or the numbers: `2,3,1`."""
    return _NAMES.get(arrangement) or ",".join(map(str, arrangement))


def parse_wanted(text: str | None) -> int | str | None:
    """The value of `--arrangements=K|all`: a number, `all`, or None where it was not given.

    Raises:
      InputError: it is neither.
    """
    if text is None or text == ALL:
        return text
    if text.isascii() and text.isdigit() and 0 < int(text) < 10**6:
        return int(text)
    raise InputError(f"--arrangements={text}: must be a number from 1 on, or all")


def arrangements(
    answers: int, *, orders: str | None, wanted: int | str | None, identity: str, seed: int
) -> tuple[Arrangement, ...]:
    """The arrangements in which a record is shown.

    Of two answers those that `orders` names; else the first `wanted` rows of a cyclic Latin square: the record's own order,
    then rotations of it, in an order that is drawn from the record's identity and the seed. With as many rows as answers each
    answer stands at each position once. `all`: every order.

    Args:
      answers: their number, N.
      orders: `forward`, `reversed`, `both`; None: forward.
      wanted: K, `all`, or None for one arrangement (of two answers, for those of `orders`).

    Raises:
      InputError: K is above N, `all` with more than four answers, or `orders` with another number than two. The message has no
        place.
    """
    if orders is not None and (answers != 2 or wanted is not None):
        if wanted is not None:
            raise InputError("--orders and --arrangements both say in which orders answers are shown; give one of the two")
        raise InputError(
            f"--orders={orders} is of two answers, and this record has {answers} to judge; use --arrangements, or leave it out"
        )
    if wanted is None:
        return _OF_TWO[orders or "forward"] if answers == 2 else (tuple(range(1, answers + 1)),)
    if wanted == ALL:
        if answers > _MOST_ANSWERS_OF_ALL:
            raise InputError(
                f"--arrangements=all shows every order of at most {_MOST_ANSWERS_OF_ALL} answers; this record has {answers}: "
                f"use --arrangements={answers}, which shows each answer at each position once"
            )
        return tuple(itertools.permutations(range(1, answers + 1)))
    assert isinstance(wanted, int)
    if wanted > answers:
        raise InputError(
            f"--arrangements={wanted} is more than the {answers} answers of this record: {answers} show each at each position "
            f"once; use --arrangements={answers} or less"
        )
    own = list(range(1, answers + 1))
    return tuple(tuple(own[shift:] + own[:shift]) for shift in (0, *_shuffled(range(1, answers), seed, identity)[: wanted - 1]))


def in_own_order(shown: Sequence[Any], arrangement: Arrangement) -> tuple[Any, ...]:
    """Values that stand in the order that was shown, in the record's own order."""
    own = [None] * len(arrangement)
    for value, number in zip(shown, arrangement, strict=True):
        own[number - 1] = value
    return tuple(own)


def as_shown(own: Sequence[Any], arrangement: Arrangement) -> tuple[Any, ...]:
    """Values that stand in the record's own order, in the order that is shown."""
    return tuple(own[number - 1] for number in arrangement)


def ranking(scores: Sequence[float]) -> list[list[int]]:
    """Groups of answer numbers, the best first; answers of one group have the same score."""
    return [
        [number for number, score in enumerate(scores, start=1) if score == level]
        for level in sorted(set(scores), reverse=True)
    ]


def mean_scores(scores: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Of each answer, the mean over arrangements, whatever their order: sums are rounded once."""
    return tuple(math.fsum(own) / len(scores) for own in zip(*scores, strict=True))


def position_effects(scores: Sequence[Sequence[float]], shown: Sequence[Arrangement]) -> list[float]:
    """Of each position, the mean score of the answers shown there, minus the mean over all positions.

    `scores`: of each arrangement, in the record's own order.
    """
    at_positions = mean_scores([as_shown(own, arrangement) for own, arrangement in zip(scores, shown, strict=True)])
    mean = math.fsum(at_positions) / len(at_positions)
    return [score - mean for score in at_positions]


def _shuffled(numbers: Sequence[int], seed: int, identity: str) -> list[int]:
    """The numbers in an order that depends on the seed and the identity alone."""
    name = identity.encode("utf-8", "surrogatepass")

    def key(number: int) -> bytes:
        return hashlib.blake2b(f"{seed} {number} ".encode() + name, digest_size=16).digest()

    return sorted(numbers, key=key)
