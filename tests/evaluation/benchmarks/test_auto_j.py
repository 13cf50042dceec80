"""Auto-J's pairwise test set in the layout of its repository."""

import itertools
from pathlib import Path

import pytest
from benchmark_files import score, summary_of, write_lines

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.auto_j import BENCHMARK, read_auto_j, read_predictions

LABELS = (0, 1, 2, 1)


def item(number: int, label: object) -> dict:
    scenario = "planning" if number < 2 else "ranking"
    return {"scenario": scenario, "label": label, "prompt": f"p{number}", "response 1": "a", "response 2": "b"}


@pytest.fixture
def loaded(tmp_path: Path):
    items = [item(number, label) for number, label in enumerate(LABELS)]
    write_lines(tmp_path / "data/test/testdata_pairwise.jsonl", *items)
    return read_auto_j(tmp_path)


def test_labels_are_first_second_tie(loaded) -> None:
    assert [label["winner"] for label in loaded.labels] == [1, 2, 0, 2]
    assert [record["pair_id"] for record in loaded.records] == [0, 1, 2, 3]


def test_the_exchanged_file_speaks_of_the_places_shown(loaded, tmp_path: Path) -> None:
    forward = write_lines(tmp_path / "f.jsonl", *({"output": value} for value in (0, 1, 2, 0)))
    back = write_lines(tmp_path / "b.jsonl", *({"output": value} for value in (1, 1, 2, 0)))
    rows = read_predictions([forward, back], loaded)
    assert [(row["forward"]["winner"], row["reversed"]["winner"]) for row in rows] == [(1, 1), (2, 1), (0, 0), (1, 2)]
    summary = summary_of(BENCHMARK, loaded, rows)
    assert summary["score"] == 0.5  # items 0 and 2 are right in both orders
    assert {name: group["score"] for name, group in summary["groups"].items()} == {"planning": 0.5, "ranking": 0.5}
    one = summary_of(BENCHMARK, loaded, read_predictions([forward], loaded), "one_order")
    assert one["score"] == 0.75


@pytest.mark.parametrize("games", list(itertools.product((1, 2, 0, None), repeat=2)))
def test_only_what_is_right_in_both_orders_counts(loaded, games: tuple) -> None:
    right = sum(games == (label["winner"],) * 2 for label in loaded.labels)
    assert score(BENCHMARK, loaded, [games] * 4)["score"] == right / 4


@pytest.mark.parametrize("rows", [[{"output": 0}], [{"out": 0}] * 4])
def test_predictions_that_do_not_fit_are_refused(loaded, tmp_path: Path, rows: list) -> None:
    with pytest.raises(InputError, match=r"p\.jsonl"):
        read_predictions([write_lines(tmp_path / "p.jsonl", *rows)], loaded)


@pytest.mark.parametrize("label", [3, True, "0", None, [0]])
def test_an_unknown_label_is_named(tmp_path: Path, label: object) -> None:
    with pytest.raises(InputError, match=r"t\.jsonl:2: label is"):
        read_auto_j(write_lines(tmp_path / "t.jsonl", item(0, 0), item(1, label)))


def test_a_third_file_of_predictions_is_refused(tmp_path: Path) -> None:
    item = {"scenario": "s", "label": 2, "prompt": "p", "response 1": "a", "response 2": "b"}
    loaded = read_auto_j(write_lines(tmp_path / "testdata_pairwise.jsonl", item))
    files = [write_lines(tmp_path / f"{number}.jsonl", {"output": 0}) for number in range(3)]
    with pytest.raises(InputError, match=r"2\.jsonl: --predictions takes one file, or one of each order"):
        read_predictions(files, loaded)
