"""Which held-out records are measured while training, and in which form a judge in training is shown them. Pure functions."""

import numpy as np

from judgelm_jax.data.augmentation import shows_reference, uniform
from judgelm_jax.data.training_file import TrainingFile
from judgelm_jax.records.json_lines import Record
from judgelm_jax.training_config import DataConfig


def sample(file: TrainingFile, count: int, seed: int) -> TrainingFile:
    """At most `count` rows of a held-out file, spread over its questions; in the order of the file.

    Which they are depends on the seed and the ids only. Every question gives one row, in an order that looks random, then
    every question a second one, and so on: records of one question err together, so more questions say more.
    """
    drawn = np.array([uniform(seed, int(key), 0, "held out") for key in file.keys])
    order = np.argsort(drawn, kind="stable")
    turns: dict[int, int] = {}
    turn = np.zeros(len(file), np.int64)  # of each row: how many rows of its question come before it
    for number in order:
        question = int(file.questions[number])
        turn[number] = turns[question] = turns.get(question, -1) + 1
    chosen = order[np.argsort(turn[order], kind="stable")][:count]
    return file.rows(np.sort(chosen))


def as_trained(record: Record, config: DataConfig) -> Record:
    """The record as training without drop shows it: without its reference where training never shows one.

    With its reference the teacher's judgment is `text_w_reference`, and without it `text`; held-out loss, prompts of judging
    and labels all follow this.
    """
    with_reference = shows_reference(record.get("text_w_reference") is not None, config)
    return record if with_reference else {name: value for name, value in record.items() if name != "reference"}
