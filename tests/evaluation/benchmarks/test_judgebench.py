"""JudgeBench in the layout of its repository."""

import itertools
from pathlib import Path

import pytest
from benchmark_files import score, summary_of, write_lines

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.judgebench import BENCHMARK, read_judgebench, read_predictions

SOURCES = ("mmlu-pro-law", "livebench-reasoning", "livebench-math", "livecodebench")


def item(number: int, label: str = "A>B", model: str = "gpt-4o-2024-05-13") -> dict:
    return {
        "pair_id": f"{model}-{number}",
        "original_id": number,
        "source": SOURCES[number % 4],
        "question": f"q{number}",
        "response_model": model,
        "response_A": "a",
        "response_B": "b",
        "label": label,
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for model in ("gpt-4o-2024-05-13", "claude-3-5-sonnet-20240620"):
        name = f"dataset=judgebench,response_model={model}"
        items = [item(number, "B>A" if number % 2 else "A>B", model) for number in range(4)]
        write_lines(tmp_path / f"data/{name}.jsonl", *items)
        write_lines(tmp_path / f"outputs/{name},judge_name=arena_hard,judge_model=x.jsonl", {"not": "data"})
    return tmp_path


def test_both_data_files_are_read_and_outputs_are_not(repository: Path) -> None:
    loaded = read_judgebench(repository)
    assert [label["winner"] for label in loaded.labels] == [1, 2] * 4
    assert loaded.labels[4]["group"] == "gpt-4o-2024-05-13: knowledge"
    assert len({record["question_id"] for record in loaded.records}) == 4  # the questions of both files are the same
    one = next((repository / "data").glob("*gpt*"))
    assert len(read_judgebench(one).records) == 4


def test_published_judgments_are_read_in_the_order_shown(repository: Path) -> None:
    data = next((repository / "data").glob("*gpt*"))
    loaded = read_judgebench(data)
    decisions = [("A>B", "B>A"), ("A>B", "A>B"), ("A>B", "A=B"), (None, "A>B")]
    rows = [
        item(number, "B>A" if number % 2 else "A>B")
        | {"judge_name": "arena_hard", "judgments": [None if d is None else {"decision": d} for d in pair]}
        for number, pair in enumerate(decisions)
    ]
    path = write_lines(repository / "o.jsonl", *rows)
    judgments = read_predictions([path], loaded)
    assert [(row["forward"]["winner"], row["reversed"]["winner"]) for row in judgments] == [(1, 1), (1, 2), (1, 0), (None, 2)]
    # labels A, B, A, B: +2; −1 + 1 = 0; +1; +1
    summary = summary_of(BENCHMARK, loaded, judgments)
    assert summary["score"] == pytest.approx(3 / 4)
    assert summary["groups"]["gpt-4o-2024-05-13: reasoning"]["score"] == 0


def test_the_score_is_that_of_the_repository_for_every_pair_of_decisions(repository: Path) -> None:
    """Its rule, counted again: +1 for the label, −1 for the other, right above 0."""
    loaded = read_judgebench(next((repository / "data").glob("*gpt*")))
    for games in itertools.product((1, 2, 0, None), repeat=2):
        right = 0
        for label in loaded.labels:
            right += sum({label["winner"]: 1, 3 - label["winner"]: -1}.get(game, 0) for game in games) > 0
        assert score(BENCHMARK, loaded, [games] * 4)["score"] == right / 4


@pytest.mark.parametrize("wrong", [{"label": "A=B"}, {"label": 1}, {"response_A": None, "pair_id": None, "label": "x"}])
def test_a_wrong_row_is_named(tmp_path: Path, wrong: dict) -> None:
    path = write_lines(tmp_path / "d.jsonl", item(0), item(1) | wrong)
    with pytest.raises(InputError, match=r"d\.jsonl:2: label is"):
        read_judgebench(path)


def test_the_outputs_of_both_data_files_are_scored_together(repository: Path) -> None:
    """As `run_judge.py` writes them: the model and its response inside each judgment, the way of judging beside them."""
    loaded = read_judgebench(repository)
    files = []
    for model in ("gpt-4o-2024-05-13", "claude-3-5-sonnet-20240620"):
        said = {"judge_model": "gpt-4o-mini", "prompt": "p", "response": "My final verdict is [[A>B]]"}
        games = [{"judgment": said, "decision": decision} for decision in ("A>B", "B>A")]
        rows = [item(number, model=model) | {"judge_name": "arena_hard", "judgments": games} for number in range(4)]
        files.append(write_lines(repository / f"{model}.jsonl", *rows))
    rows = read_predictions(files, loaded)
    assert len(rows) == 8
    assert {(row["pred_model_id"], row["pred_text"]) for row in rows} == {("gpt-4o-mini", "My final verdict is [[A>B]]")}
    assert summary_of(BENCHMARK, loaded, rows)["score"] == pytest.approx(4 / 8)  # always A, and labels A, B, A, B
