"""Judgments as a table: CSV for spreadsheets, Parquet for programs."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.output_files import write_atomically

# A spreadsheet runs a cell that begins with one of these (OWASP, CSV injection), and answers come from strangers.
_RUN = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_csv(path: Path, rows: Sequence[Record]) -> None:
    """A column a field; objects become columns `FIELD.KEY`, lists their JSON.

    A text that a spreadsheet would run begins with an apostrophe, so that it is shown and not run. Parquet keeps texts as they
    are.
    """
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    with write_atomically(path) as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow([_cell(name) for name in names])
        writer.writerows([_cell(row.get(name)) for name in names] for row in flat)


def write_parquet(path: Path, rows: Sequence[Record]) -> None:
    """As `write_csv`, with texts unchanged. A column whose values are of several kinds holds their JSON.

    Raises:
      InputError: the package pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("--format=parquet needs the package pyarrow; pip install 'judgelm-jax[parquet]'") from error
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    columns = {name: _column([row.get(name) for row in flat]) for name in names}
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    with write_atomically(path) as file:
        file.buffer.write(sink.getvalue().to_pybytes())


def _flat(row: Record) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        inner = {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {name: value}
        for key, item in inner.items():
            flat[key] = json.dumps(item) if isinstance(item, (dict, list)) else item
    return flat


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return "" if value is None else value
    text = _encodable(value)
    return f"'{text}" if text.startswith(_RUN) else text


def _column(values: list[Any]) -> list[Any]:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {str}:
        return [None if value is None else _encodable(value) for value in values]
    long = any(type(value) is int and abs(value) >= 2**63 for value in values)
    if (kinds <= {int, float} and not long) or kinds == {bool}:
        return [float(value) if value is not None and float in kinds else value for value in values]
    return [None if value is None else json.dumps(value) for value in values]


def _encodable(text: str) -> str:
    """Without lone surrogates, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
