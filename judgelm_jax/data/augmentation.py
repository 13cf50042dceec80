"""What a record shows in an epoch: the answers in their order or exchanged, with or without the reference.

Pure functions: what is random depends on (seed, identity, epoch) only, and a record is never changed.
"""

import dataclasses
import hashlib
import re
from typing import NamedTuple

from judgelm_jax.data import wording
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import answers_of, identity, identity_hash, reference_of
from judgelm_jax.training_config import DataConfig
from judgelm_jax.verdicts.score_lines import explanation_of

_SCORE = re.compile(r"\d+(?:\.\d*)?(?:\s*/\s*10)?")
_ANSWER_FIELD = re.compile(r"answer([12])_")


class Variant(NamedTuple):
    """One of the four things that can be made of a record."""

    swapped: bool
    with_reference: bool


@dataclasses.dataclass(frozen=True)
class Example:
    """A prompt's parts and the judgment to learn, all in the order that is shown."""

    identity: str
    question: str
    answers: tuple[str, ...]
    reference: str | None
    target: str
    explanation_dropped: bool  # only the scores stay, since the explanation could not be exchanged with certainty


def augment(record: Record, config: DataConfig, seed: int, epoch: int) -> Example:
    """The example that a checked training record gives in an epoch (from 0)."""
    has_reference = record.get("text_w_reference") is not None
    return example_of(record, draw_variant(identity_hash(identity(record)), has_reference, config, seed, epoch))


def draw_variant(key: int, has_reference: bool, config: DataConfig, seed: int, epoch: int) -> Variant:
    """What becomes of a record in an epoch.

    Args:
      key: the `identity_hash` of its identity.
      has_reference: whether there is a judgment with reference (`text_w_reference`).
    """
    with_reference = shows_reference(has_reference, config) and (
        uniform(seed, key, epoch, "reference") >= config.reference_drop
    )
    return Variant(uniform(seed, key, epoch, "swap") < config.swap_augmentation, with_reference)


def shows_reference(has_reference: bool, config: DataConfig) -> bool:
    """Whether a record is shown with its reference, unless that is dropped: only where the teacher judged with it."""
    return config.reference_support and has_reference


def example_of(record: Record, variant: Variant) -> Example:
    """The example of a record in one variant."""
    text_field, other = ("text_w_reference", "text") if variant.with_reference else ("text", "text_w_reference")
    needed = {field: value for field, value in record.items() if field != other}
    shown = swap(needed) if variant.swapped else needed
    original, target = record[text_field], shown[text_field]
    return Example(
        identity(record),
        shown["question_body"],
        tuple(answers_of(shown)),
        reference_of(shown) if variant.with_reference else None,
        target,
        bool(explanation_of(original)) and not explanation_of(target),
    )


def swap(record: Record) -> Record:
    """A new record with the two answers exchanged: all their fields, both judgments and both pairs of scores."""
    swapped = {_other_answer(field): value for field, value in record.items()}
    for field in ("text", "text_w_reference"):
        if record.get(field) is not None:
            swapped[field] = swap_judgment(record[field])
    for field in ("score", "score_w_reference"):
        if record.get(field) is not None:
            swapped[field] = record[field][::-1]
    return swapped


def swap_judgment(text: str) -> str:
    """A judgment of the answers in the other order: scores exchanged as they are written, explanation reworded or dropped."""
    line, newline, explanation = text.partition("\n")
    first, second = _SCORE.finditer(line)
    scores = line[: first.start()] + second[0] + line[first.end() : second.start()] + first[0] + line[second.end() :]
    return scores + newline + (wording.exchange(explanation) or "")


def uniform(seed: int, key: int, epoch: int, purpose: str) -> float:
    """A number from [0, 1) that looks random and depends on nothing but its arguments."""
    digest = hashlib.sha256(f"{seed} {key} {epoch} {purpose}".encode()).digest()
    return (int.from_bytes(digest[:8], "little") >> 11) * 2.0**-53


def _other_answer(field: str) -> str:
    match = _ANSWER_FIELD.match(field)
    return f"answer{3 - int(match[1])}_{field[match.end() :]}" if match else field
