"""LLMBar's original files: one subset, all subsets, and GPT-4's published verdicts."""

import json
from pathlib import Path

import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.llmbar import BENCHMARK, read_llmbar, read_predictions
from judgelm_jax.evaluation.benchmarks.scoring import summarize_benchmark

ITEM = {"input": "Q", "output_1": "a", "output_2": "b", "label": 2}


def test_gpt4_on_natural_gives_its_published_statistics(shared: Path) -> None:
    folder = shared / "data/benchmarks/llmbar"
    vanilla = folder / "Natural/GPT-4/Vanilla"
    published = json.loads((vanilla / "statistics.json").read_text())
    loaded = read_llmbar(folder / "Natural")
    rows = read_predictions([vanilla / "result.json"], loaded)
    scores = {
        name: summarize_benchmark(BENCHMARK, loaded, rows, reduction="label", protocol=name) for name in BENCHMARK.protocols
    }
    assert f"{100 * scores['average']['score']:.1f}%" == published["correct_average"] == "95.5%"
    assert published["correct_both"].endswith(f"= {100 * scores['both_right']['score']:.1f}%")
    assert published["correct_False"].endswith(f"= {100 * scores['one_order']['score']:.1f}%")
    assert published["equal"].endswith(f"= {100 * scores['one_order']['metrics']['consistency']:.1f}%")


def test_the_repository_is_searched_for_its_subsets(tmp_path: Path) -> None:
    for place in ("Natural", "Adversarial/Manual", "Adversarial/GPTInst"):
        folder = tmp_path / "Dataset/LLMBar" / place
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(json.dumps([ITEM | {"input": place}, ITEM | {"input": place + "!"}]))
    other = tmp_path / "Dataset/CaseStudy/Base-10"
    other.mkdir(parents=True)
    (other / "dataset.json").write_text(json.dumps([ITEM]))
    loaded = read_llmbar(tmp_path)
    assert [label["pair_id"] for label in loaded.labels] == [
        f"{name}/{number}" for name in ("Adversarial/GPTInst", "Adversarial/Manual", "Natural") for number in (0, 1)
    ]
    assert len(read_llmbar(tmp_path / "Dataset/LLMBar/Natural").records) == 2
    assert len(read_llmbar(tmp_path / "Dataset/LLMBar/Natural/dataset.json").records) == 2


def test_groups_are_the_subsets(shared: Path) -> None:
    folder = shared / "data/benchmarks/llmbar"
    loaded = read_llmbar(folder)
    assert len(loaded.records) == 234
    rows = read_predictions([folder / "Natural/GPT-4/Vanilla/result.json"], loaded)
    summary = summarize_benchmark(BENCHMARK, loaded, rows, reduction="label", protocol="average")
    assert set(summary["groups"]) == {"Natural"}
    assert (summary["coverage"]["judged"], summary["coverage"]["missing"]) == (100, 134)


@pytest.mark.parametrize("wrong", [{"label": 3}, {"label": True}, {"label": [1]}, {"label": None}])
def test_an_unknown_label_is_refused(tmp_path: Path, wrong: dict) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps([ITEM, ITEM | wrong]))
    with pytest.raises(InputError, match="item 1: label is"):
        read_llmbar(path)


def test_verdicts_of_other_texts_are_refused(tmp_path: Path) -> None:
    path, result = tmp_path / "dataset.json", tmp_path / "result.json"
    path.write_text(json.dumps([ITEM]))
    loaded = read_llmbar(path)
    for item, message in ((ITEM | {"input": "R"}, "are no item"), (ITEM, "has no results")):
        result.write_text(json.dumps([item]))
        with pytest.raises(InputError, match=f"item 0: .*{message}"):
            read_predictions([result], loaded)


def test_results_of_several_subsets_are_scored_together(tmp_path: Path) -> None:
    games = {"swap = False": {"winner": "1"}, "swap = True": {"winner": "1"}}
    results = []
    for place in ("Natural", "Adversarial/Manual"):
        folder = tmp_path / "data" / place
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_text(json.dumps([ITEM | {"input": place}]))
        results.append(tmp_path / place.replace("/", "-") / "result.json")
        results[-1].parent.mkdir()
        results[-1].write_text(json.dumps([ITEM | {"input": place, "results": [games]}]))
    loaded = read_llmbar(tmp_path / "data")
    rows = read_predictions(results, loaded)
    assert [row["pred_model_id"] for row in rows] == ["Natural", "Adversarial-Manual"]
    assert {row["pair_id"] for row in rows} == {record["pair_id"] for record in loaded.records}
