"""JSON Lines in and out: reading, the identity of a record, checks of the whole file, atomic outputs."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from judgelm_jax.errors import InputError
from judgelm_jax.records.stand_ins import stand_in

Record = dict[str, Any]

# Deeper values than this could be read but, further down the call stack, no longer be written.
_MAX_NESTING = 100
_ONE_A_LINE = "write one JSON object a line"
_TOO_DEEP = f"values are nested more than {_MAX_NESTING} deep; flatten or remove them"


@dataclasses.dataclass(frozen=True)
class InputSummary:
    """What a check of an input file found: the records that will be judged, the sha256 of the whole file."""

    records: int
    sha256: str


def read_jsonl(path: Path) -> Iterator[tuple[int, Record]]:
    """Yields (line number from 1, object) of a UTF-8 file with one JSON object a line.

    Blank lines are skipped. A byte order mark at the start is accepted, and so are lone surrogates that are
    written as escapes.

    Raises:
      InputError: a line that is no UTF-8, no JSON (NaN and Infinity are none), or no object.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            record = parse_line(path, number, line)
            if record is not None:
                yield number, record


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


def parse_line(path: Path, number: int, line: bytes) -> Record | None:
    """The object of one line; None for a blank one. Raises as `read_jsonl`."""
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    if not line.strip():
        return None
    if number == 1 and (fault := stand_in(line)):
        raise InputError(f"{path}: {fault}")
    try:
        record = json.loads(
            line.decode("utf-8"), parse_float=_finite, parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except UnicodeDecodeError as error:
        form = "UTF-16, not UTF-8" if line.startswith((b"\xff\xfe", b"\xfe\xff")) else "not UTF-8"
        raise InputError(f"{path}:{number}: {form} (byte {error.start} of the line); save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}:{number}: not valid JSON ({error.msg}, column {error.colno}); {_other_form(line) or _ONE_A_LINE}"
        ) from error
    except ValueError as error:  # a constant, a number or a double field that is refused
        reason = str(error).split(";")[0]
        raise InputError(f"{path}:{number}: not valid JSON ({reason}); fix or remove the line") from error
    except RecursionError as error:
        raise InputError(f"{path}:{number}: {_TOO_DEEP}") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}:{number}: the line holds no JSON object; {_other_form(line) or _ONE_A_LINE}")
    if line.count(b"[") + line.count(b"{") > _MAX_NESTING and _nesting(record) > _MAX_NESTING:
        raise InputError(f"{path}:{number}: {_TOO_DEEP}")
    return record


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
            f"there are {known} answers where {most} are judged; remove 'answer{most + 1}_body' and those after it"
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
        raise InputError(f"the field {field!r} is of type {_type_name(record[field])}; make it a string")


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


def dump_line(record: Record) -> str:
    """One line of JSON without its newline; ASCII escapes only where it holds lone surrogates.

    Raises:
      ValueError: a number that is not finite.
    """
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(record, allow_nan=False)
    return line


def check_output(path: Path, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """Refuses, before any work, an output that exists (unless `overwrite`), is no plain file, is one of the inputs, or whose
    folder cannot be written to. A folder that is missing is no error: it is made.

    Raises:
      InputError: says what is wrong with it.
    """
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise InputError(f"{path}: {parent} is no folder; choose another place for the output")
    if any(path.resolve() == other.resolve() for other in inputs):
        raise InputError(f"{path}: is also read or written by this command; choose another name for the output")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: exists and is no plain file; choose another name for the output")
    if path.exists() and not overwrite:
        raise InputError(f"{path}: exists already; choose another name, or pass --overwrite to replace it")
    try:
        with tempfile.TemporaryFile(dir=parent):  # permissions alone do not tell of file systems that are read only
            pass
    except OSError as error:
        raise InputError(f"{path}: nothing can be written to {parent} ({error.strerror}); choose another place") from error


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[TextIO]:
    """Opens a text file that appears under `path` when it is complete and on disk.

    An error leaves nothing behind. Folders that are missing are made. An `OSError` (a full disk) names
    `path`.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.filename is None or error.filename == str(temporary):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Record:
    """An object; of two fields with one name JSON readers take any, so that nobody knows which was meant."""
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return record


def _other_form(line: bytes) -> str:
    """What to do with a file that looks like JSON, but like no JSON Lines."""
    start = line.strip()
    if start.startswith(b"["):
        return "this looks like one JSON list; write its objects one a line (jq -c '.[]' FILE)"
    if start == b"{":
        return "this looks like an object over many lines; write each object on one line (jq -c . FILE)"
    return ""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _nesting(value: object) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _id_text(record: Record, field: str) -> str:
    value = record[field]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"{field} is of type {_type_name(value)}; an id is a string or a number")
    return plain_text(value)


def plain_text(value: object) -> str:
    """A field's value as text that is the same for the same JSON value: 1.0 is 1 (one JSON number), true is `true`.

    A string stays as it is, so the text "1.0" is not the number 1.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) in (int, float) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _answer_number(key: str) -> int:
    """K of a key `answerK_body`; 0 of any other."""
    if not (key.startswith("answer") and key.endswith("_body")):
        return 0
    middle = key[len("answer") : -len("_body")]
    return int(middle) if middle.isascii() and middle.isdigit() and len(middle) < 7 else 0


def _type_name(value: object) -> str:
    names = {"NoneType": "null", "bool": "boolean", "int": "number", "float": "number", "str": "string", "dict": "object"}
    name = type(value).__name__
    return names.get(name, name)
