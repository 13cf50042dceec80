"""RewardBench in the layout of its records, as JSON Lines and Parquet."""

import json
from pathlib import Path

import pandas
import pytest
from benchmark_files import score, summary_of, write_lines
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.rewardbench import BENCHMARK, SECTIONS, read_predictions, read_rewardbench
from judgelm_jax.evaluation.benchmarks.scoring import summary_text

COUNTS = {"alpacaeval-easy": 3, "mt-bench-med": 1, "llmbar-natural": 2, "donotanswer": 2, "math-prm": 2, "hep-python": 3}


def items() -> list[dict]:
    return [
        {"id": number, "subset": subset, "prompt": f"{subset}{number}", "chosen": "good", "rejected": "bad"}
        for subset, count in COUNTS.items()
        for number in range(count)
    ]


@pytest.fixture
def loaded(tmp_path: Path):
    return read_rewardbench(write_lines(tmp_path / "filtered.jsonl", *items()))


def test_there_are_23_subsets_in_four_sections() -> None:
    assert [len(subsets) for subsets in SECTIONS.values()] == [5, 6, 5, 7]


def test_the_label_is_where_the_chosen_answer_stands_and_both_places_occur(loaded, tmp_path: Path) -> None:
    for record, label in zip(loaded.records, loaded.labels, strict=True):
        assert record[f"answer{label['winner']}_body"] == "good"
        assert record[f"answer{3 - label['winner']}_body"] == "bad"
    many = [item | {"id": f"x{number}"} for number, item in enumerate(items() * 20)]
    winners = [label["winner"] for label in read_rewardbench(write_lines(tmp_path / "m.jsonl", *many)).labels]
    assert winners.count(1) / len(winners) == pytest.approx(0.5, abs=0.1)


def test_parquet_gives_the_same(loaded, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pandas.DataFrame(items()).to_parquet(tmp_path / "data/filtered-00000-of-00001.parquet")
    assert read_rewardbench(tmp_path / "data") == loaded


def by_hand(credits: dict[str, list[float]]) -> float:
    """Sections weighted by the subsets' numbers of items, math-prm by 984; then the plain mean of the sections."""
    sections = []
    for subsets in SECTIONS.values():
        present = {name: 984 if name == "math-prm" else len(credits[name]) for name in subsets if name in credits}
        if present:
            mean = sum(size * sum(credits[name]) / len(credits[name]) for name, size in present.items())
            sections.append(mean / sum(present.values()))
    return sum(sections) / len(sections)


@given(st.lists(st.sampled_from((1, 0, -1, None)), min_size=13, max_size=13))
def test_the_score_is_the_mean_of_the_sections(tmp_path_factory, outcomes: list) -> None:
    path = tmp_path_factory.mktemp("rb") / "d.jsonl"
    loaded = read_rewardbench(write_lines(path, *items()))
    credits: dict = {}
    games = []
    for label, outcome in zip(loaded.labels, outcomes, strict=True):
        winner = {1: label["winner"], 0: 0, -1: 3 - label["winner"], None: None}[outcome]
        games.append((winner,))
        credits.setdefault(label["subset"], []).append({1: 1, 0: 0.5, -1: 0, None: 0}[outcome])
    summary = score(BENCHMARK, loaded, games)
    assert summary["score"] == pytest.approx(by_hand(credits))
    for name, values in credits.items():
        assert summary["groups"][name]["score"] == pytest.approx(sum(values) / len(values))
    assert sum(summary["sections"].values()) / 4 == pytest.approx(summary["score"])


def test_a_subset_that_was_not_judged_weighs_nothing(loaded) -> None:
    games = [(label["winner"],) if label["subset"] == "hep-python" else None for label in loaded.labels]
    games[-1] = (0,)
    assert score(BENCHMARK, loaded, games)["score"] == pytest.approx((1 + 1 + 0.5) / 3)


def test_a_subset_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "d.jsonl", items()[0] | {"subset": "shp"})
    with pytest.raises(InputError, match=r"d\.jsonl:1: the subset 'shp'"):
        read_rewardbench(path)


@pytest.mark.parametrize("layout", ["columns", "rows"])
def test_published_results_are_predictions(loaded, tmp_path: Path, layout: str) -> None:
    """A file of `eval-set-scores/`: one object of columns, beside them what the run was."""
    results = [(1, 0, 0.5)[number % 3] for number in range(len(items()))]
    rows = [
        {"subset": item["subset"], "id": item["id"], "results": result} for item, result in zip(items(), results, strict=True)
    ]
    path = tmp_path / "results.json"
    if layout == "columns":
        columns: dict = {name: [row[name] for row in rows] for name in rows[0]}
        columns |= {
            "scores_chosen": [0.1] * len(rows),
            "model": "some/judge",
            "model_type": "Generative RM",
            "chat_template": None,
        }
        path.write_text(json.dumps(columns, indent=4, sort_keys=True))
    else:
        write_lines(path, *rows)
    judgments = read_predictions([path], loaded)
    credits: dict[str, list[float]] = {}
    for row in rows:
        credits.setdefault(row["subset"], []).append(row["results"])
    summary = summary_of(BENCHMARK, loaded, judgments)
    assert summary["score"] == pytest.approx(by_hand(credits))
    assert f"sections   Chat {summary['sections']['Chat']:.4f}, Chat Hard " in summary_text(summary)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"subset": ["hep-go"], "id": [1], "results": [1]}, "item 0: its subset and id are none"),
        ({"subset": ["donotanswer"], "id": [1], "results": ["A"]}, "item 0: results is 'A'"),
        ({"subset": ["donotanswer"], "id": [1]}, "item 0: results is None"),
        ({"subset": ["donotanswer"], "id": [1, 0], "results": [1]}, "columns have different lengths"),
        ({"subset": "donotanswer"}, ":1: its subset and id are none"),
    ],
)
def test_wrong_results_are_named(loaded, tmp_path: Path, columns: dict, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps(columns))
    with pytest.raises(InputError, match=f"results.json.*{message}"):
        read_predictions([path], loaded)


def test_an_id_that_stands_twice_in_a_subset_is_two_items_in_the_order_of_the_file(tmp_path: Path) -> None:
    twice = [
        {"id": 7, "subset": "donotanswer", "prompt": f"p{number}", "chosen": "good", "rejected": "bad"} for number in (1, 2)
    ]
    loaded = read_rewardbench(write_lines(tmp_path / "filtered.jsonl", *twice))
    assert [record["pair_id"] for record in loaded.records] == ["donotanswer/7", "donotanswer/7#2"]
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"subset": ["donotanswer"] * 2, "id": [7, 7], "results": [1, 0]}))
    judgments = read_predictions([path], loaded)
    right = [row["winner"] == label["winner"] for row, label in zip(judgments, loaded.labels, strict=True)]
    assert right == [True, False]
    assert [row["question_body"] for row in judgments] == ["p1", "p2"]
