"""How often the intervals hold the truth: simulated evaluations whose truth is known. Prints the table of this folder's README.

OMP_NUM_THREADS=1 python -m judgelm_jax.evaluation.coverage --repetitions=4000

One thread is faster than several: the matrices are small.
"""

import argparse
import dataclasses
from collections.abc import Callable

import numpy as np

from judgelm_jax.evaluation import metrics
from judgelm_jax.evaluation.statistics import Interval, difference_interval, magnitude_interval, proportion_interval


@dataclasses.dataclass(frozen=True)
class Setting:
    """A made-up benchmark and judge.

    `records` a question on average (from 1 to 2 · records − 1 each); `correlation` within a question; `ties`: share of tie
    labels, the others are half first and half second; `accuracy`, errors half and half; `first`, `second`: the shares of pairs
    in which that position is preferred.
    """

    questions: int
    records: int
    correlation: float
    accuracy: float
    ties: float
    first: float
    second: float


SETTINGS = (
    Setting(20, 1, 0.0, 0.5, 0.2, 0.2, 0.1),
    Setting(20, 5, 0.4, 0.7, 0.2, 0.2, 0.1),
    Setting(20, 5, 0.4, 0.99, 0.05, 0.01, 0.0),
    Setting(50, 1, 0.0, 0.7, 0.33, 0.3, 0.2),
    Setting(50, 1, 0.0, 0.99, 0.05, 0.02, 0.02),
    Setting(50, 5, 0.4, 0.7, 0.33, 0.3, 0.2),
    Setting(170, 6, 0.3, 0.7, 0.1, 0.1, 0.3),
    Setting(170, 6, 0.3, 0.98, 0.1, 0.01, 0.0),
    Setting(500, 1, 0.0, 0.8, 0.33, 0.05, 0.05),
    Setting(500, 4, 0.5, 0.8, 0.33, 0.15, 0.05),
    Setting(2000, 3, 0.5, 0.9, 0.1, 0.05, 0.03),
    Setting(2000, 3, 0.5, 0.999, 0.05, 0.001, 0.0),
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """The share of intervals that hold the truth, their mean width, and whether 10 questions of each outcome are expected."""

    share: float
    width: float
    enough: bool


def measure(setting: Setting, repetitions: int, seed: int = 0) -> dict[str, Measured]:
    """Simulates evaluations and counts how often each interval holds what is true of the setting."""
    generator = np.random.default_rng(seed)
    truths = _truths(setting)
    held = dict.fromkeys(truths, 0)
    width = dict.fromkeys(truths, 0.0)
    for _ in range(repetitions):
        for name, interval in _intervals(*_simulate(setting, generator)).items():
            low, high = interval or (1.0, 0.0)
            held[name] += low - 1e-9 <= truths[name] <= high + 1e-9
            width[name] += high - low
    rare = _rarest(setting)
    return {
        name: Measured(held[name] / repetitions, width[name] / repetitions, setting.questions * rare[name] >= 10)
        for name in truths
    }


def _simulate(setting: Setting, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every record its question, the cell (label, verdict) as 0, 1, 2 each, and -1, 0, 1 for the preferred position."""
    sizes = generator.integers(1, 2 * setting.records, setting.questions)
    question = np.repeat(np.arange(setting.questions), sizes)
    # With the probability √correlation a record has its question's outcome, else its own: two records correlate as wanted.
    common = generator.random(len(question)) < np.sqrt(setting.correlation)
    draws = np.where(common, generator.random((3, setting.questions))[:, question], generator.random((3, len(question))))
    label = np.digitize(draws[0], np.cumsum(_labels(setting))[:2])
    wrong = draws[1] >= setting.accuracy
    step = np.where(draws[1] < (1 + setting.accuracy) / 2, 1, 2)
    verdict = np.where(wrong, (label + step) % 3, label)
    preferred = (draws[2] < setting.first).astype(int) - (draws[2] > 1 - setting.second)
    return question, np.stack([label, verdict]), preferred


def _intervals(question: np.ndarray, cell: np.ndarray, preferred: np.ndarray) -> dict[str, Interval | None]:
    label, verdict = cell
    clusters = question.tolist()
    table = np.zeros((int(question.max()) + 1, 3, 4))
    np.add.at(table, (question, label, verdict), 1)
    right = (label == verdict).astype(float)
    intervals: dict[str, Interval | None] = {"agreement": proportion_interval(right, clusters)}
    intervals |= metrics.macro_intervals(table)
    return intervals | {
        "consistency": proportion_interval(preferred == 0, clusters),
        "bias_first": proportion_interval(preferred > 0, clusters),
        "delta_bias": magnitude_interval(preferred, clusters),
        # against a judge that always says "first"
        "difference": difference_interval(right - (label == 0), clusters),
    }


def _labels(setting: Setting) -> np.ndarray:
    return np.array([(1 - setting.ties) / 2, (1 - setting.ties) / 2, setting.ties])


def _truths(setting: Setting) -> dict[str, float]:
    labels = _labels(setting)
    matrix = np.zeros((1, 3, 4))
    matrix[0, :, :3] = labels[:, None] * np.where(np.eye(3) > 0, setting.accuracy, (1 - setting.accuracy) / 2)
    scores = {name: float(statistic(matrix)[0]) for name, statistic in metrics.MACRO_SCORES}
    return {
        "agreement": setting.accuracy,
        **scores,
        "consistency": 1 - setting.first - setting.second,
        "bias_first": setting.first,
        "delta_bias": abs(setting.first - setting.second),
        "difference": setting.accuracy - float(labels[0]),
    }


def _rarest(setting: Setting) -> dict[str, float]:
    """The share of the rarest outcome of each figure."""
    wrong = 1 - setting.accuracy
    first_label = float(_labels(setting)[0])
    macro = float(_labels(setting).min()) * min(setting.accuracy, wrong)
    changed = setting.first + setting.second
    return {
        "agreement": min(setting.accuracy, wrong),
        **{name: macro for name, _ in metrics.MACRO_SCORES},
        "consistency": min(changed, 1 - changed),
        "bias_first": min(setting.first, 1 - setting.first),
        "delta_bias": min(setting.first, setting.second),
        "difference": min(setting.accuracy * (1 - first_label), wrong * first_label),
    }


def table(repetitions: int, report: Callable[[str], None]) -> None:
    """Reports the table in Markdown, a row a setting: coverage in per cent, an `*` where it may be larger, and width."""
    names = list(_truths(SETTINGS[0]))
    report("| questions × records, correlation | accuracy, ties, first, second | " + " | ".join(names) + " |")
    report("| --- | --- |" + " --- |" * len(names))
    for setting in SETTINGS:
        measured = measure(setting, repetitions)
        shown = [f"{100 * row.share:.1f}{'' if row.enough else '*'} ({row.width:.3f})" for row in measured.values()]
        made = f"{setting.accuracy}, {setting.ties}, {setting.first}, {setting.second}"
        report(f"| {setting.questions} × {setting.records}, {setting.correlation} | {made} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=2000)
    table(parser.parse_args().repetitions, print)
