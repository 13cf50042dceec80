"""What may sway a judge beside the quality of an answer: its length and its markup.

As in style control of LMArena (Li et al. 2024, "Does style matter?"): differences relative to their sum, then divided by
their standard deviation.
"""

import re
from collections.abc import Sequence

import numpy as np

CONTROLS = ("length", "style")

_STYLE = {
    "headers": re.compile(r"^ {0,3}#{1,6} ", re.MULTILINE),
    "lists": re.compile(r"^[ \t]*(?:[-*+]|\d{1,3}[.)]) ", re.MULTILINE),
    "bold": re.compile(r"\*\*[^*\n]{1,200}\*\*|__[^_\n]{1,200}__"),
}


def names(controls: Sequence[str]) -> list[str]:
    """The covariates that `length` and `style` stand for."""
    return [name for control in controls for name in (["length"] if control == "length" else [*_STYLE])]


def features(text: str, controls: Sequence[str]) -> list[int]:
    """Words, and counts of headers, list items and bold spans, in the order of `names`."""
    values: list[int] = []
    for control in controls:
        values += [len(text.split())] if control == "length" else [len(form.findall(text)) for form in _STYLE.values()]
    return values


def differences(texts: Sequence[tuple[str, str]], controls: Sequence[str]) -> np.ndarray:
    """float64 [comparisons, covariates]: (first - second) / (first + second), each column divided by its deviation.

    A column in which all pairs are alike is zero.
    """
    both = np.array([[features(text, controls) for text in pair] for pair in texts], np.float64)  # [n, 2, covariates]
    both = both.reshape(len(texts), 2, len(names(controls)))
    relative = (both[:, 0] - both[:, 1]) / np.maximum(both.sum(axis=1), 1)
    deviation = relative.std(axis=0)
    return np.where(deviation > 0, relative / np.where(deviation > 0, deviation, 1), 0)
