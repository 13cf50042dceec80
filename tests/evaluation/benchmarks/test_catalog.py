"""What holds for every benchmark: names, and that no file whatever ends in anything but a sentence with its place."""

import copy
import json
from pathlib import Path

import pytest
from benchmark_files import ROWS, dumped, place
from hypothesis import given, settings
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.catalog import BENCHMARKS
from judgelm_jax.records.records import identity

NAMES = "judgelm pandalm llmbar judgebench rewardbench rewardbench2 mt_bench auto_j faireval alpaca_eval prometheus mm_vet"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "text", "x"]), inner),
    max_leaves=6,
)


def test_the_names_are_those_of_the_contract() -> None:
    assert list(BENCHMARKS) == NAMES.split()
    for name, benchmark in BENCHMARKS.items():
        assert benchmark.name == name
        assert benchmark.protocols
        assert benchmark.reductions
        assert all(protocol.orders in ("forward", "both") for protocol in benchmark.protocols.values())
        assert all(0 <= baseline.value <= 1 and baseline.source for baseline in benchmark.baselines)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_a_row_as_published_is_read_below_a_folder(tmp_path: Path, name: str) -> None:
    loaded = BENCHMARKS[name].read(place(tmp_path, name, dumped(name, [ROWS[name]])), next(iter(BENCHMARKS[name].reductions)))
    assert len(loaded.records) == len(loaded.labels) == 1
    assert identity(loaded.records[0]) == identity(loaded.labels[0])


@pytest.mark.parametrize("name", list(BENCHMARKS))
@settings(max_examples=60)
@given(data=st.data())
def test_a_row_with_any_one_value_changed_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    row = copy.deepcopy(ROWS[name])
    field = data.draw(st.sampled_from(list(row)))
    if data.draw(st.booleans()):
        row[field] = data.draw(VALUES)
    else:
        del row[field]
    folder = place(tmp_path_factory.mktemp("x"), name, dumped(name, [row]))
    try:
        loaded = BENCHMARKS[name].read(folder, next(iter(BENCHMARKS[name].reductions)))
    except InputError as error:
        assert str(folder) in str(error)  # noqa: PT017 (there need be no error)
        return
    for record in loaded.records:
        json.dumps(record, allow_nan=False)
        assert all(isinstance(value, str) for key, value in record.items() if key.endswith("_body"))


@pytest.mark.parametrize("name", list(BENCHMARKS))
@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "[1]", "null", '"x"', "[[]]", "{", '{"a": 1}', "\ud800", "PAR1", "\x1f\x8b"]
)
def test_a_file_of_anything_else_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = place(tmp_path, name, content)
    with pytest.raises(InputError, match=str(tmp_path)):
        BENCHMARKS[name].read(folder, next(iter(BENCHMARKS[name].reductions)))


READING = [name for name, benchmark in BENCHMARKS.items() if benchmark.read_predictions]


@pytest.mark.parametrize("name", READING)
@settings(max_examples=40)
@given(data=st.data())
def test_predictions_of_anything_are_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("x")
    benchmark = BENCHMARKS[name]
    loaded = benchmark.read(place(folder, name, dumped(name, [ROWS[name]])), next(iter(benchmark.reductions)))
    fields = {"gpt_result": 1, "results": [], "judgments": [], "scores": [], "output": 0, "score": []}
    row = ROWS[name] | data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys([*ROWS[name], *fields], VALUES)))
    path = folder / "p.json"
    path.write_text(json.dumps({"v0": row} if name == "mm_vet" else [row]))
    try:
        rows = benchmark.read_predictions([path], loaded)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017 (there need be no error)
        return
    assert all("pred_text" in judgment for judgment in rows)
