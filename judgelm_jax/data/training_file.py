"""A training file (JudgeLM-100K form): checked as a whole, then read record by record in any order."""

import dataclasses
import hashlib
import os
import weakref
from array import array
from pathlib import Path

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.records.json_lines import Record, parse_line
from judgelm_jax.records.records import (
    check_record,
    check_text,
    identity,
    identity_hash,
    question_identity,
    reference_of,
    refuse_duplicates,
)
from judgelm_jax.verdicts import score_lines

_FAILED_TEXT = "error"  # what stands for a judgment that the teacher did not give
_FAILED_SCORE = -1


class _OpenFile:
    """A descriptor that closes when garbage-collected."""

    def __init__(self, descriptor: int):
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainingFile:
    """The usable rows of a checked file, by their number from 0. Memory: 37 bytes a row.

    Threads may share it. The file stays open, so that one which replaces it under its name does not mix into a run.
    """

    path: Path
    sha256: str  # of all bytes
    skipped: int  # rows where the teacher failed
    offsets: np.ndarray  # int64 [N], bytes from the start of the file
    sizes: np.ndarray  # int32 [N], bytes of the line
    lines: np.ndarray  # int64 [N], line numbers from 1
    keys: np.ndarray  # uint64 [N], `identity_hash` of the identities
    questions: np.ndarray  # uint64 [N], `identity_hash` of the question ids
    has_reference: np.ndarray  # bool [N], there is also a judgment with reference
    file: _OpenFile = dataclasses.field(repr=False)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, number: int) -> Record:
        line = os.pread(self.file.descriptor, int(self.sizes[number]), int(self.offsets[number]))
        try:
            record = parse_line(self.path, int(self.lines[number]), line)
            if record is not None and identity_hash(identity(record)) == self.keys[number]:
                return record
        except InputError:
            pass
        raise InputError(f"{self.place(number)}: has changed since the file was checked; start again, and leave it alone")

    def rows(self, numbers: np.ndarray) -> "TrainingFile":
        """The same file with these usable rows only, in this order."""
        columns = ("offsets", "sizes", "lines", "keys", "questions", "has_reference")
        return dataclasses.replace(self, **{name: getattr(self, name)[numbers] for name in columns})

    def identity(self, number: int) -> str:
        """The identity of a row; reads it."""
        return identity(self[number])

    def place(self, number: int) -> str:
        """`FILE:LINE` of a row."""
        return f"{self.path}:{self.lines[number]}"


def check_training_file(path: Path) -> TrainingFile:
    """Reads a whole training file once and checks structure: JSON, fields, types, identities, scores.

    Rows where the teacher failed (the text `error`, or a score of -1, with or without reference) are left out and counted;
    so they need no first line that agrees with the scores.

    Raises:
      InputError: the first line that is wrong, two lines with one identity, or no usable row at all.
    """
    digest = hashlib.sha256()
    hashes = array("Q")
    offsets, sizes, lines, keys, questions, has_reference = (array(kind) for kind in "qiqQQb")
    skipped, offset = 0, 0
    with path.open("rb") as file:
        opened = _OpenFile(os.dup(file.fileno()))
        for number, line in enumerate(file, start=1):
            digest.update(line)
            start, offset = offset, offset + len(line)
            record = parse_line(path, number, line)
            if record is None:
                continue
            try:
                usable = _check_training_record(record)
                hashes.append(identity_hash(identity(record)))
            except InputError as error:
                raise InputError(f"{path}:{number}: {error}") from error
            if not usable:
                skipped += 1
                continue
            offsets.append(start)
            sizes.append(len(line))
            lines.append(number)
            keys.append(hashes[-1])
            questions.append(identity_hash(question_identity(record)))
            has_reference.append(record.get("text_w_reference") is not None)
    refuse_duplicates(path, hashes)
    if not offsets:
        raise InputError(f"{path}: no row to train on ({skipped} rows in which the teacher failed); give a file with judgments")
    return TrainingFile(
        path,
        digest.hexdigest(),
        skipped,
        np.array(offsets, np.int64),
        np.array(sizes, np.int32),
        np.array(lines, np.int64),
        np.array(keys, np.uint64),
        np.array(questions, np.uint64),
        np.array(has_reference, np.bool_),
        opened,
    )


def _check_training_record(record: Record) -> bool:
    """Whether the teacher judged. Raises an `InputError` without place where the record is wrong."""
    check_record(record)
    judged = _check_judgment(record, "text", "score")
    with_reference = [record.get(field) is not None for field in ("text_w_reference", "score_w_reference")]
    if any(with_reference):
        if not all(with_reference):
            raise InputError("of 'text_w_reference' and 'score_w_reference' one is missing; give both or neither")
        if reference_of(record) is None:
            raise InputError("there is a 'text_w_reference' without 'reference'; add the reference that the teacher saw")
        judged &= _check_judgment(record, "text_w_reference", "score_w_reference")
    return judged


def _check_judgment(record: Record, text_field: str, score_field: str) -> bool:
    check_text(record, text_field)
    text, scores = record[text_field], record.get(score_field)
    if scores is None:
        raise InputError(f"the field {score_field!r} is missing; add the two scores as a list of numbers")
    if not isinstance(scores, list) or len(scores) != 2 or not all(_is_number(score) for score in scores):
        raise InputError(f"the field {score_field!r} is no list of two numbers; write it as [8, 6.5]")
    if text == _FAILED_TEXT or _FAILED_SCORE in scores:
        return False
    if not all(0 <= score <= 10 for score in scores):
        raise InputError(f"{score_field!r} is {scores}; scores are from 0 to 10, or -1 where the teacher failed")
    if score_lines.parse_scores(text, 2) != [float(score) for score in scores]:
        line = text.partition("\n")[0]
        shown = line if len(line) <= 40 else f"{line[:40]}…"
        raise InputError(
            f"the first line of {text_field!r} is {shown!r} and {score_field!r} is {scores}; "
            "make them agree, as '8 6.5' and [8, 6.5]"
        )
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
