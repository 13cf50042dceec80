"""RewardBench 2 in the layout of its records: best of four by enumeration, Ties by a second reading of its definition."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_files import summary_of, write_lines
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.rewardbench2 import BENCHMARK, read_predictions, read_rewardbench2


def four(key: object, subset: str = "Math") -> dict:
    answers = {"chosen": ["c0"], "rejected": ["r0", "r1", "r2"], "num_correct": 1}
    return {"id": key, "subset": subset, "prompt": f"p{key}", **answers}


def ties(kind: str, number: int, right: int, wrong: int = 2) -> dict:
    answers = {"chosen": [f"c{n}" for n in range(right)], "rejected": [f"r{n}" for n in range(wrong)], "num_correct": right}
    return {"id": f"{kind}:{number}", "subset": "Ties", "prompt": f"p{number}", **answers}


def read(folder: Path, *items: dict):
    return read_rewardbench2(write_lines(folder / "test.jsonl", *items))


def published(folder: Path, loaded, *scores: tuple) -> list:
    rows = [{"id": key, "subset": subset, "scores": values} for key, subset, values in scores]
    return read_predictions([write_lines(folder / "s.jsonl", *rows)], loaded)


def test_answers_are_turned_round_and_labels_follow(tmp_path: Path) -> None:
    loaded = read(tmp_path, *(four(number) for number in range(40)))
    assert loaded.kind == "multi"
    for record, label in zip(loaded.records, loaded.labels, strict=True):
        bodies = [record[f"answer{number}_body"] for number in range(1, 5)]
        assert sorted(bodies) == ["c0", "r0", "r1", "r2"]
        assert [number for number, body in enumerate(bodies, start=1) if body == "c0"] == label["correct"]
    assert {label["correct"][0] for label in loaded.labels} == {1, 2, 3, 4}


@pytest.mark.parametrize("scores", list(itertools.product((1, 2, 3), repeat=4)))
def test_best_of_four_shares_the_best_score(tmp_path: Path, scores: tuple) -> None:
    loaded = read(tmp_path, four("x"))
    best = [place for place, value in enumerate(scores) if value == max(scores)]
    summary = summary_of(BENCHMARK, loaded, published(tmp_path, loaded, ("x", "Math", list(scores))))
    assert summary["score"] == pytest.approx((0 in best) / len(best))


def test_a_judgment_without_scores_is_a_draw_of_all(tmp_path: Path) -> None:
    loaded = read(tmp_path, four("x"))
    rows = [{**loaded.records[0], "pred_text": "?", "status": "unparsed", "scores": None}]
    assert summary_of(BENCHMARK, loaded, rows)["score"] == 0.25


def test_the_score_is_the_mean_of_the_subsets(tmp_path: Path) -> None:
    loaded = read(tmp_path, four(1), four(2), four(3), four(4, "Safety"))
    win, lose = [9, 1, 1, 1], [1, 9, 1, 1]
    rows = published(tmp_path, loaded, (1, "Math", win), (2, "Math", lose), (3, "Math", lose), (4, "Safety", win))
    assert summary_of(BENCHMARK, loaded, rows)["score"] == pytest.approx((1 / 3 + 1) / 2)


def by_definition(refs: list, tied: list) -> float:
    """The published definition over arrays: one entry a prompt, right scores first."""

    def parts(right, wrong):
        return max(right) - min(right), min(right) - max(wrong)

    ref, tie = np.array([parts(*one) for one in refs]), np.array([parts(*one) for one in tied])
    low = np.minimum(ref[:, 1], tie[:, 1])
    with np.errstate(all="ignore"):
        margin = np.nan_to_num(np.tanh(low / tie[:, 0] - 1), nan=0.0)
    return (
        0.3 * (tie[:, 1] > 0).mean()
        + 0.3 * (ref[:, 1] > 0).mean()
        + 0.2 * (tie[:, 1] > tie[:, 0]).mean()
        + 0.2 * (low > tie[:, 0]).mean()
        + 0.01 * margin.mean()
    )


GRADE = st.integers(1, 10)


@given(st.lists(st.tuples(*(st.lists(GRADE, min_size=n, max_size=n) for n in (1, 2, 3, 2))), min_size=1, max_size=6))
def test_ties_follow_their_definition(tmp_path_factory, prompts: list) -> None:
    folder = tmp_path_factory.mktemp("ties")
    items = [item for number in range(len(prompts)) for item in (ties("ref", number, 1), ties("tied", number, 3))]
    loaded = read(folder, *items)
    scores = []
    for number, (ref_right, ref_wrong, right, wrong) in enumerate(prompts):
        scores += [(f"ref:{number}", "Ties", ref_right + ref_wrong), (f"tied:{number}", "Ties", right + wrong)]
    summary = summary_of(BENCHMARK, loaded, published(folder, loaded, *scores))
    expected = by_definition([one[:2] for one in prompts], [one[2:] for one in prompts])
    assert summary["score"] == pytest.approx(expected)
    assert summary["ties_score"] == pytest.approx(expected)
    assert summary["questions"] == len(prompts)
    if summary["score_interval"] is not None:
        low, high = summary["score_interval"]
        assert low < high
        assert low <= expected <= high or len(prompts) < 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"chosen": "c"}, "no list of answers"),
        ({"rejected": []}, "no list of answers"),
        ({"num_correct": 2}, "num_correct is 2"),
        ({"subset": "Ties"}, "ref:N or tied:N"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, wrong: dict, message: str) -> None:
    with pytest.raises(InputError, match=rf"test\.jsonl:2: .*{message}"):
        read(tmp_path, four(1), four(2) | wrong)


@pytest.mark.parametrize("scores", [[1, 2], "no", [1, 2, 3, None], [1, 2, 3, [4, 5]]])
def test_wrong_scores_are_named(tmp_path: Path, scores: object) -> None:
    loaded = read(tmp_path, four(1))
    with pytest.raises(InputError, match=r"s\.jsonl:1: "):
        published(tmp_path, loaded, (1, "Math", scores))


def test_a_published_file_of_columns_is_read(tmp_path: Path) -> None:
    """As the benchmark's program writes it: a judge that names the best of four has no scores but for Ties."""
    loaded = read(tmp_path, four("0"), four("1"), four("2", "Safety"), ties("ref", 0, 1), ties("tied", 0, 3))
    columns = {
        "id": ["0", "1", "2", "ref:0", "tied:0"],
        "subset": ["Math", "Math", "Safety", "Ties", "Ties"],
        "results": [1, 0.25, 0, None, None],
        "scores": [None, None, None, [5, 1, 1], [5, 5, 5, 1, 1]],
        "num_correct": [1, 1, 1, 1, 3],
        "model": "some/judge",
        "score_w_ratings": False,
    }
    path = tmp_path / "judge.json"
    path.write_text(json.dumps(columns))
    summary = summary_of(BENCHMARK, loaded, read_predictions([path], loaded))
    perfect = 0.3 + 0.3 + 0.2 + 0.2 + 0.01 * 1  # tanh(∞): the right answers lie at one score
    assert summary["ties_score"] == pytest.approx(perfect)
    assert summary["score"] == pytest.approx((1.25 / 2 + 0 + perfect) / 3)
    path.write_text(json.dumps({**columns, "scores": None, "results": [None] * 5}))
    with pytest.raises(InputError, match=r"judge\.json: item 0: has not a score for every answer, nor results"):
        read_predictions([path], loaded)
