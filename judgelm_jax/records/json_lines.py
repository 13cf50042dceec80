"""JSON Lines in and out, strictly: what two programs would read differently is refused."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from judgelm_jax.errors import InputError
from judgelm_jax.records.stand_ins import stand_in

Record = dict[str, Any]
# Deeper values than this could be read but, further down the call stack, no longer be written.
_MAX_NESTING = 100
_ONE_A_LINE = "write one JSON object a line"
_TOO_DEEP = f"values are nested more than {_MAX_NESTING} deep; flatten or remove them"


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
        column = min(error.pos, len(error.doc.rstrip("\r\n"))) + 1  # not one of the line behind a cut one
        raise InputError(
            f"{path}:{number}: not valid JSON ({error.msg}, column {column}); {_other_form(line) or _ONE_A_LINE}"
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


def plain_text(value: object) -> str:
    """A field's value as text that is the same for the same JSON value: 1.0 is 1 (one JSON number), true is `true`.

    A string stays as it is, so the text "1.0" is not the number 1.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if type(value) in (int, float) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def type_name(value: object) -> str:
    names = {"NoneType": "null", "bool": "boolean", "int": "number", "float": "number", "str": "string", "dict": "object"}
    name = type(value).__name__
    return names.get(name, name)
