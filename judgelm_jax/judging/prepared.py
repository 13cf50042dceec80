"""Records made ready for the engine: what is shown of them, as prompts. Imports no JAX."""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from judgelm_jax.judging.batching import Prompt
from judgelm_jax.kinds import Case
from judgelm_jax.prompts.arrangements import Arrangement
from judgelm_jax.records.json_lines import Record
from judgelm_jax.verdicts.score_lines import LineForm
from judgelm_jax.verdicts.verdicts import Verdict

# Records that are sorted by length together. Memory is bounded by a window, whatever the length of the input.
WINDOW = 8192


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a prompt shows: a case of a record (by their numbers) in one arrangement.

    `removed`: tokens cut from each answer, in the record's own order. `form`: of the lines that may follow; None where no
    prompt fits.
    """

    record: int
    case: int
    order: Arrangement
    removed: tuple[int, ...] = ()
    form: LineForm | None = None


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A window of records, tokenized. The index of a prompt is that of what it shows in `shown`."""

    records: dict[int, Record]
    cases: dict[int, tuple[Case, ...]]
    shown: list[Shown]
    prompts: list[Prompt]
    verdicts: dict[int, Verdict]  # of what is shown that needs no model, by its number
    by_pairs: dict[int, int]  # of records whose answers are judged two by two, how many these are


def record_of(question: str, answers: Sequence[str], reference: str | None) -> Record:
    """A record for one call from Python; a TypeError names what is no string."""
    named = [("the question", question), *((f"answer {number}", text) for number, text in enumerate(answers, start=1))]
    for name, text in named:
        if not isinstance(text, str):
            raise TypeError(f"{name} is of type {type(text).__name__}; it must be a string")
    record: Record = {"question_id": 0, "question_body": question}
    record |= {f"answer{number}_body": answer for number, answer in enumerate(answers, start=1)}
    return record if reference is None else {**record, "reference": reference}


def windows(numbered: Iterable[tuple[int, Record]]) -> Iterator[tuple[tuple[int, Record], ...]]:
    """Cuts (index, record) pairs into windows."""
    numbered = iter(numbered)
    while window := tuple(itertools.islice(numbered, WINDOW)):
        yield window


def sampling_key(*parts: Any) -> np.ndarray:
    """uint32 [2]: what is drawn for a prompt depends on these parts and nothing else."""
    return np.frombuffer(_digest(*parts)[:8], np.uint32)


def _digest(*parts: Any) -> bytes:
    """A hash of the parts, each with its length so that no two lists of parts share one."""
    texts = [str(part).encode("utf-8", "surrogatepass") for part in parts]
    return hashlib.sha256(b"".join(len(text).to_bytes(8, "little") + text for text in texts)).digest()
