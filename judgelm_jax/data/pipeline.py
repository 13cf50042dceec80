"""The plan of a run, the same on every host before it begins, and the batches that follow from it.

A batch is known by its step alone: by the file, the seed, the epoch and the number of its rows, not by processes or threads.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from judgelm_jax.data import packing
from judgelm_jax.data.augmentation import Variant, draw_variant, example_of, uniform
from judgelm_jax.data.tokens import Size, measure, tokenize
from judgelm_jax.data.training_file import TrainingFile
from judgelm_jax.errors import InputError
from judgelm_jax.tokens.tokenization import Tokenizer
from judgelm_jax.training_config import DataConfig, RecipeConfig

if TYPE_CHECKING:
    import grain

_VARIANTS = tuple(Variant(swapped, with_reference) for with_reference in (False, True) for swapped in (False, True))
_CHUNK = 512  # records that are tokenized together for their lengths
_THREADS = 8  # that build batches ahead, each one at a time


@dataclasses.dataclass(frozen=True)
class Epoch:
    """The examples of an epoch in the order of their rows; the rows that fill its last batch are empty.

    Examples `starts[row]` to `starts[row + 1]` stand in a row. `numbers` int32 [E] are those of the file's records,
    `variants` int8 [E] indices into `_VARIANTS`, `lengths` int32 [E] tokens.
    """

    numbers: np.ndarray
    variants: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray  # int32 [E], target tokens
    shortened: np.ndarray  # bool [E]
    dropped: np.ndarray  # bool [E], without the explanation, which could not be exchanged with certainty
    starts: np.ndarray  # int32 [rows + 1]
    overflow: int  # records that are left out since they do not fit


@dataclasses.dataclass(frozen=True)
class Plan:
    """All steps of a run. Steps, epochs and rows are numbered from 0.

    `steps` is their number; `steps_per_epoch` counts whole epochs, so that its sum may be above it; `targets` is the most
    target tokens in one row of `length` tokens.
    """

    file: TrainingFile
    epochs: list[Epoch]
    batch: int
    length: int
    steps: int
    steps_per_epoch: list[int]
    targets: int

    def epoch_of(self, step: int) -> int:
        """The epoch in which a step lies."""
        return self._place(step)[0]

    def identities(self, step: int) -> list[str]:
        """The identities of the records in a step's batch; reads them."""
        epoch, first = self._place(step)
        starts = self.epochs[epoch].starts
        return [self.file.identity(n) for n in self.epochs[epoch].numbers[starts[first] : starts[first + self.batch]]]

    def counts(self, epoch: int) -> dict[str, int | float]:
        """What was trained in an epoch, for its report; of the last epoch only the steps that the run makes count.

        `examples`, and among them `swapped`, `with_reference`, `shortened`, `explanations_dropped` (they could not be
        exchanged with certainty); `rows`, `tokens`, `target_tokens`; `padding`: the share of padding in all rows. Of the whole
        file: `overflow`, records left out of the epoch since they do not fit; `teacher_failed`, rows that say so.
        """
        one = self.epochs[epoch]
        steps = min(self.steps_per_epoch[epoch], self.steps - sum(self.steps_per_epoch[:epoch]))
        rows = steps * self.batch
        trained = slice(0, int(one.starts[rows]))
        variants, tokens = [_VARIANTS[variant] for variant in one.variants[trained]], int(one.lengths[trained].sum())
        return {
            "examples": len(variants),
            "swapped": sum(variant.swapped for variant in variants),
            "with_reference": sum(variant.with_reference for variant in variants),
            "shortened": int(one.shortened[trained].sum()),
            "explanations_dropped": int(one.dropped[trained].sum()),
            "overflow": one.overflow,
            "teacher_failed": self.file.skipped,
            "rows": rows,
            "tokens": tokens,
            "target_tokens": int(one.targets[trained].sum()),
            "padding": 1 - tokens / (rows * self.length),
        }

    def left_out(self) -> tuple[int, int, int]:
        """Of the records of the file: those in which the teacher failed, those that fit in no epoch of the run, all."""
        fitting = np.unique(np.concatenate([epoch.numbers for epoch in self.epochs]))
        return self.file.skipped, len(self.file) - len(fitting), self.file.skipped + len(self.file)

    def row(self, step: int, place: int) -> tuple[Epoch, slice]:
        """The epoch of a step, and where in it the examples of one row of the batch stand."""
        epoch, first = self._place(step)
        starts = self.epochs[epoch].starts
        return self.epochs[epoch], slice(int(starts[first + place]), int(starts[first + place + 1]))

    def _place(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and the row of that epoch with which its batch begins."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of {self.steps}")
        epoch = 0
        while step >= self.steps_per_epoch[epoch]:
            step -= self.steps_per_epoch[epoch]
            epoch += 1
        return epoch, step * self.batch


def plan(file: TrainingFile, tokenizer: Tokenizer, eos_id: int, config: DataConfig, recipe: RecipeConfig) -> Plan:
    """Orders, measures and packs the examples of every epoch that the run reaches.

    Each record is tokenized once for each of the (at most four) variants in which the epochs show it.

    Raises:
      InputError: a record is too long and `on_overflow` is `error`, none fits at all, or the epochs have fewer steps.
    """
    sizes = _Sizes(file, tokenizer, eos_id, config)
    epochs: list[Epoch] = []
    steps: list[int] = []
    for number in range(recipe.epochs):
        if recipe.steps and sum(steps) >= recipe.steps:
            break
        epochs.append(_plan_epoch(file, sizes, config, recipe, number))
        steps.append((len(epochs[-1].starts) - 1) // recipe.batch)
    if recipe.steps > sum(steps):
        raise InputError(
            f"--config.training.steps={recipe.steps}: {recipe.epochs} epochs of {file.path} have {sum(steps)}; "
            "lower it, or raise --config.training.epochs"
        )
    targets = max(int(np.add.reduceat(epoch.targets, _filled(epoch.starts)).max()) for epoch in epochs)
    return Plan(file, epochs, recipe.batch, config.length, recipe.steps or sum(steps), steps, targets)


def batches(
    plan: Plan,
    file: TrainingFile,
    tokenizer: Tokenizer,
    eos_id: int,
    config: DataConfig,
    recipe: RecipeConfig,
    process_index: int = 0,
    process_count: int = 1,
    start: int = 0,
) -> "grain.DatasetIterator":
    """Iterates over steps from `start`; an element is this process's part of a step's batch, b = batch ÷ processes rows.

    It is a dict of the arrays of `packing.lay_out` with a leading axis [b]. `get_state` is `{"next_index": step}` in every
    process; `set_state` goes to any step.

    Raises:
      InputError: the processes do not divide the batch.
    """
    import grain

    if recipe.batch % process_count:
        raise InputError(
            f"--config.training.batch={recipe.batch}: does not divide among {process_count} processes; choose a multiple of it"
        )
    if not 0 <= start <= plan.steps:
        raise ValueError(f"start {start} of {plan.steps} steps")
    rows = recipe.batch // process_count

    def build(place: int) -> dict[str, np.ndarray]:
        step, row = divmod(place, rows)
        epoch, examples = plan.row(step, process_index * rows + row)
        documents = []
        for number, variant, length in zip(
            epoch.numbers[examples], epoch.variants[examples], epoch.lengths[examples], strict=True
        ):
            example = example_of(file[number], _VARIANTS[variant])
            tokens = tokenize(example, tokenizer, eos_id, config.length, config.on_overflow)
            if tokens is None or len(tokens.ids) != length:
                raise AssertionError(f"{file.place(number)}: has other tokens than when the run was planned")
            documents.append(tokens)
        return packing.lay_out(documents, config.length, plan.targets)

    dataset = grain.MapDataset.range(plan.steps * rows).map(build).batch(rows)
    threads = min(_THREADS, os.cpu_count() or 1)
    iterator = iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)))
    iterator.set_state({**iterator.get_state(), "next_index": start})
    return iterator


def _plan_epoch(file: TrainingFile, sizes: "_Sizes", config: DataConfig, recipe: RecipeConfig, epoch: int) -> Epoch:
    keys = [int(key) for key in file.keys]
    variants = np.array(
        [
            _VARIANTS.index(draw_variant(key, bool(reference), config, recipe.seed, epoch))
            for key, reference in zip(keys, file.has_reference, strict=True)
        ],
        np.int8,
    )
    sizes.find(variants)
    everyone = np.arange(len(file))
    tokens = sizes.tokens[everyone, variants]
    order = np.argsort([uniform(recipe.seed, key, epoch, "order") for key in keys], kind="stable").astype(np.int32)
    order = order[tokens[order] > 0]
    if not len(order):
        raise InputError(
            f"{file.path}: no record fits a row of {config.length} tokens; raise --config.data.length"
            + ("" if config.on_overflow == "truncate" else ", or pass --config.data.on_overflow=truncate")
        )
    bins: Sequence[Sequence[int]] = [[place] for place in range(len(order))]
    if config.packing:
        bins = packing.first_fit(tokens[order].tolist(), config.length)
        # Long examples are left for the bins that are begun late: shuffled, every batch has some.
        bins = sorted(bins, key=lambda bin: uniform(recipe.seed, keys[order[bin[0]]], epoch, "rows"))
    rows = -(-len(bins) // recipe.batch) * recipe.batch
    starts = np.zeros(rows + 1, np.int32)
    starts[1 : len(bins) + 1] = np.cumsum([len(bin) for bin in bins])
    starts[len(bins) + 1 :] = len(order)
    numbers = order[np.concatenate(bins)]
    chosen = numbers, variants[numbers]
    return Epoch(
        numbers=numbers,
        variants=variants[numbers],
        lengths=tokens[numbers],
        targets=sizes.targets[chosen],
        shortened=sizes.shortened[chosen],
        dropped=sizes.dropped[chosen],
        starts=starts,
        overflow=len(file) - len(numbers),
    )


def _filled(starts: np.ndarray) -> np.ndarray:
    """Where the rows begin that are not empty."""
    return starts[:-1][np.diff(starts) > 0]


class _Sizes:
    """Lengths of records in the variants that were asked for. All arrays are [records, variants]."""

    def __init__(self, file: TrainingFile, tokenizer: Tokenizer, eos_id: int, config: DataConfig):
        self._file, self._tokenizer, self._eos_id, self._config = file, tokenizer, eos_id, config
        shape = len(file), len(_VARIANTS)
        self.known = np.zeros(shape, np.bool_)
        self.tokens, self.targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)  # 0: does not fit
        self.shortened, self.dropped = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)

    def find(self, variants: np.ndarray) -> None:
        """Measures the records whose variant, int8 [records], is not known yet."""
        unknown = np.flatnonzero(~self.known[np.arange(len(variants)), variants])
        with tqdm(total=len(unknown), desc="tokenizing", unit=" records", disable=None, leave=False) as progress:
            for numbers in np.split(unknown, range(_CHUNK, len(unknown), _CHUNK)):
                examples = [example_of(self._file[n], _VARIANTS[variants[n]]) for n in numbers]
                found = measure(examples, self._tokenizer, self._eos_id, self._config.length, self._config.on_overflow)
                for n, example, size in zip(numbers, examples, found, strict=True):
                    if isinstance(size, InputError):
                        raise InputError(f"{self._file.place(n)}: {size}")
                    place = n, variants[n]
                    self.known[place], self.dropped[place] = True, example.explanation_dropped
                    if isinstance(size, Size):
                        self.tokens[place], self.targets[place] = size.tokens, size.targets
                        self.shortened[place] = size.shortened
                progress.update(len(numbers))
