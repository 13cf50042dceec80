"""Which kind each layer is of, and layers of like kinds together, so that a program holds each kind once. Imports no JAX."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from judgelm_jax.model.config import LayerKind, ModelConfig


class Stretch(NamedTuple):
    """`times` groups of layers from layer `start` on; each group has one layer of each of `kinds`, in their order."""

    start: int
    times: int
    kinds: tuple[LayerKind, ...]


def kinds_of(config: ModelConfig, longest: int) -> tuple[LayerKind, ...]:
    """The kind of each layer where no token sees more than `longest`: a window that is no smaller is none."""
    kinds = [config.pattern[layer % len(config.pattern)] for layer in range(config.num_layers)]
    return tuple(
        kind if kind.window is None or kind.window < longest else dataclasses.replace(kind, window=None) for kind in kinds
    )


def shortest_pattern(kinds: Sequence[LayerKind]) -> tuple[LayerKind, ...]:
    """The fewest kinds that give all of them when they are repeated."""
    return next(tuple(kinds[:n]) for n in range(1, len(kinds) + 1) if all(kind == kinds[i % n] for i, kind in enumerate(kinds)))


def stretches(kinds: Sequence[LayerKind]) -> list[Stretch]:
    """All layers as stretches, so that a program that holds the kinds of each once holds few layers.

    Either repetitions of the shortest pattern and the layers behind the last whole one, or runs of equal kinds.
    """
    if not kinds:
        return []
    pattern = shortest_pattern(kinds)
    times, rest = divmod(len(kinds), len(pattern))
    repeated = [Stretch(0, times, pattern)]
    if rest:
        repeated.append(Stretch(times * len(pattern), 1, pattern[:rest]))
    runs = [Stretch(0, 1, (kinds[0],))]
    for layer, kind in enumerate(kinds[1:], start=1):
        last = runs[-1]
        if last.kinds == (kind,):
            runs[-1] = last._replace(times=last.times + 1)
        else:
            runs.append(Stretch(layer, 1, (kind,)))
    return min(repeated, runs, key=lambda found: sum(len(stretch.kinds) for stretch in found))
