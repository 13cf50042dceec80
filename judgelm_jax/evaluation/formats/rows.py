"""The objects of a file, whatever holds them: JSON Lines, a JSON list, CSV or Parquet, the text ones also as `.gz`."""

import csv
import datetime
import decimal
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from judgelm_jax.errors import InputError
from judgelm_jax.records.json_lines import Record, parse_line
from judgelm_jax.records.stand_ins import stand_in

Row = tuple[str, Record]  # where it is, for messages, and what it holds

_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_LARGEST_CELL = 2**31 - 1  # the csv module refuses cells above 128 kB unless told otherwise
_MAX_DEPTH = 100


def read_rows(path: Path) -> list[Row]:
    """Every object of a file with its place: `FILE:LINE`, or `FILE: item N` (from 0) where lines say nothing.

    The content decides what the file is, but for CSV, whose name must end in `.csv` or `.tsv` (`.csv.gz`, …). Cells of CSV are
    strings. NaN is null.

    Raises:
      InputError: the file is none of these, is cut off, or holds something that is no object.
    """
    head = _head(path)
    if head.startswith(_PARQUET):
        return _parquet_rows(path)
    content = _content(path)
    names = path.name.lower().removesuffix(".gz")
    if names.endswith((".csv", ".tsv")):
        return _csv_rows(path, content, "\t" if names.endswith(".tsv") else None)
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        items = read_json(path)
        for number, item in enumerate(items):
            if not isinstance(item, dict):
                raise InputError(f"{path}: item {number}: is no JSON object; fetch or write the file again")
        return [(f"{path}: item {number}", item) for number, item in enumerate(items)]
    return list(_json_lines(path, content))


def read_json(path: Path) -> Any:
    """The one JSON value of a file (`.gz` or not). NaN is null.

    Raises:
      InputError: it is no JSON, or no UTF-8.
    """
    try:
        value = json.loads(_content(path).decode("utf-8-sig"), parse_constant=_constant)
        _refuse_depth(value)
        return value
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}); fetch or write the file again") from error


def as_text(value: object) -> tuple[str, bool]:
    """A value that should be a text, as a text, and whether it had to be made one (its JSON)."""
    return (value, False) if isinstance(value, str) else (json.dumps(value, ensure_ascii=False), True)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _content(path: Path) -> bytes:
    data = path.read_bytes()
    if not data.startswith(_GZIP):
        if fault := stand_in(data[:64]):
            raise InputError(f"{path}: {fault}")
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); fetch or write the file again") from error


def _json_lines(path: Path, content: bytes) -> Iterator[Row]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        record = parse_line(path, number, line)
        if record is not None:
            yield f"{path}:{number}", record


def _csv_rows(path: Path, content: bytes, delimiter: str | None) -> list[Row]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from error
    header = text.split("\n", 1)[0]
    delimiter = delimiter or max(",;\t", key=header.count)
    csv.field_size_limit(_LARGEST_CELL)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    try:
        names = list(reader.fieldnames or [])
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise InputError(f"{path}:1: two columns are named {double!r}; give every column its own name")
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{path}:{reader.line_num}: the row has more or fewer cells than the header; quote cells")
            rows.append((f"{path}:{reader.line_num}", dict(row)))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not valid CSV ({error}); write the file again") from error
    return rows


def _parquet_rows(path: Path) -> list[Row]:
    parquet = _pyarrow_parquet(path)
    import pyarrow

    try:
        items = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not valid Parquet ({error}); fetch or write the file again") from error
    return [(f"{path}: item {number}", _plain(item)) for number, item in enumerate(items)]


def _pyarrow_parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"{path}: Parquet needs the package pyarrow; pip install 'judgelm-jax[parquet]'") from error
    return pyarrow.parquet


def _plain(value: Any) -> Any:
    """A value of Arrow as JSON knows it: times and exact decimals as their text, bytes as UTF-8, NaN as null."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal)):
        return str(value)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _constant(name: str) -> None:
    if name != "NaN":
        _refuse(name)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _refuse_depth(value: object) -> None:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"values are nested more than {_MAX_DEPTH} deep")
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
