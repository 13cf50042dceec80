"""What a record is: its identity, its texts, and the checks of a whole file of them."""

import dataclasses
import hashlib
from array import array
from collections.abc import Callable
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.records.json_lines import Record, parse_line, plain_text, read_jsonl, type_name


@dataclasses.dataclass(frozen=True)
class InputSummary:
    """What a check of an input file found: the records that will be judged, the sha256 of the whole file."""

    records: int
    sha256: str


def identity(record: Record) -> str:
    """The identity of a record: `pair_id` where present, else `question_id`, as a string.

    Raises:
      InputError: neither is there, or it is no string and no number. The message has no place;
        callers know it.
    """
    if record.get("pair_id") is not None:
        return _id_text(record, "pair_id")
    return question_identity(record)


def question_identity(record: Record) -> str:
    """The `question_id` as a string; references and answer files join by it. Raises as `identity`."""
    if record.get("question_id") is None:
        raise InputError("the field 'question_id' is missing; every record needs an id")
    return _id_text(record, "question_id")


def answers_of(record: Record) -> list[str]:
    """The answers in the record's own order: `answer1_body`, `answer2_body`, up to the first that is missing."""
    answers: list[str] = []
    while (answer := record.get(f"answer{len(answers) + 1}_body")) is not None:
        answers.append(answer)
    return answers


def reference_of(record: Record) -> str | None:
    """The text of the record's own reference answer (a string or `{"text": ...}`); None without one."""
    reference = record.get("reference")
    return reference["text"] if isinstance(reference, dict) else reference


def check_reference(record: Record) -> None:
    """Raises an `InputError` without place where the record's `reference` is no form that `reference_of` knows."""
    reference = record.get("reference")
    text = reference.get("text") if isinstance(reference, dict) else reference
    if not isinstance(text, str) and reference is not None:
        raise InputError("the field 'reference' is no text; make it a string, or an object with a string 'text'")


def check_records(
    path: Path,
    *,
    answers: tuple[int, int | None] = (2, 2),
    structure: Callable[[Record], object] | None = None,
    limit: int | None = None,
    also: Callable[[Record], object] | None = None,
) -> InputSummary:
    """Reads a whole file of judge records once and checks structure: JSON, fields, types, identities.

    Args:
      path: the file.
      answers: the fewest and the most that a record may have (None: any number).
      structure: the check of a record, in place of `check_record`.
      limit: the number of records that will be judged. The rest is checked all the same, but not counted.
      also: a further check of each record; it raises an `InputError` without place.

    Returns the number of records and the sha256 of the file's bytes. Memory: 8 bytes a record.

    Raises:
      InputError: the first line that is wrong, or two lines with one identity.
    """
    digest = hashlib.sha256()
    hashes = array("Q")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            digest.update(line)
            record = parse_line(path, number, line)
            if record is None:
                continue
            try:
                if structure is None:
                    check_record(record, answers)
                else:
                    structure(record)
                if also is not None:
                    also(record)
                hashes.append(identity_hash(identity(record)))
            except InputError as error:
                raise InputError(f"{path}:{number}: {error}") from error
    refuse_duplicates(path, hashes)
    count = len(hashes) if limit is None else min(limit, len(hashes))
    return InputSummary(count, digest.hexdigest())


def read_references(path: Path) -> dict[str, str]:
    """Reads a file of references: the text of the reference answer by `question_id`.

    Raises:
      InputError: a line without id or reference, or two lines with one id.
    """
    references: dict[str, str] = {}
    lines: dict[str, int] = {}
    for number, record in read_jsonl(path):
        try:
            key = question_identity(record)
            check_reference(record)
            text = reference_of(record)
            if text is None:
                raise InputError("the field 'reference' is missing; give a string or an object with a 'text'")
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        if key in lines:
            raise InputError(
                f"{path}:{number}: question_id {key!r} is already in line {lines[key]}; keep one reference of them"
            )
        references[key], lines[key] = text, number
    return references


def check_record(record: Record, answers: tuple[int, int | None] = (2, 2)) -> None:
    """Checks fields and types of one judge record, with `answers` as in `check_records`.

    Raises:
      InputError: says what is wrong; the message has no place.
    """
    question_identity(record)  # references join by it
    if "conversation_1" in record and "question_body" not in record:
        raise InputError("this is a record of conversations; judge it with --kind=conversation")
    check_text(record, "question_body")
    if "text" in record and not any(_answer_number(name) for name in record):
        raise InputError("this is a model's answer, no judge record; judgelm-prepare makes records of answer files")
    needed, most = answers
    for number in range(1, needed + 1):
        check_text(record, f"answer{number}_body")
    known = needed
    while f"answer{known + 1}_body" in record:
        known += 1
        check_text(record, f"answer{known}_body")
    if most is not None and known > most:
        raise InputError(
            f"there are {known} answers where {most} are judged; judge them with --kind=multi, or remove "
            f"'answer{most + 1}_body' and those after it"
        )
    stray = [key for key in record if _answer_number(key) > known]
    if stray:
        raise InputError(f"the field {stray[0]!r} is there without 'answer{known + 1}_body'; number the answers without a gap")
    check_reference(record)


def check_text(record: Record, field: str) -> None:
    """Raises an `InputError` without place where the record has no string in this field."""
    if field not in record:
        raise InputError(f"the field {field!r} is missing; add it as a string")
    if not isinstance(record[field], str):
        raise InputError(f"the field {field!r} is of type {type_name(record[field])}; make it a string")


def identity_hash(text: str) -> int:
    """64 bits that stand for an identity."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def refuse_duplicates(path: Path, hashes: array) -> None:
    """Compares the identity hashes of a file; where two are equal, reads it again for the lines (or a chance collision).

    Raises:
      InputError: two lines have one identity.
    """
    import numpy as np

    ordered = np.sort(np.array(hashes, dtype=np.uint64))
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not suspects:
        return
    lines: dict[str, int] = {}
    for number, record in read_jsonl(path):
        key = identity(record)
        if identity_hash(key) not in suspects:
            continue
        if key in lines:
            raise InputError(f"{path}:{number}: the id {key!r} is already in line {lines[key]}; give every record its own id")
        lines[key] = number


def _id_text(record: Record, field: str) -> str:
    value = record[field]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"{field} is of type {type_name(value)}; an id is a string or a number")
    return plain_text(value)


def _answer_number(key: str) -> int:
    """K of a key `answerK_body`; 0 of any other."""
    if not (key.startswith("answer") and key.endswith("_body")):
        return 0
    middle = key[len("answer") : -len("_body")]
    return int(middle) if middle.isascii() and middle.isdigit() and len(middle) < 7 else 0
