"""AlpacaEval's annotations: the real file, its published win rate, and every kind of preference."""

import json
from pathlib import Path

import pandas
import pytest
from benchmark_files import score, summary_of, write_json

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.alpaca_eval import BENCHMARK, read_alpaca_eval, read_predictions


def item(number: int, preference: object) -> dict:
    texts = {"instruction": f"i{number}", "output_1": "a", "output_2": "b"}
    return texts | {"generator_1": "base", "generator_2": "model", "preference": preference, "dataset": "koala"}


def test_the_real_annotations_give_the_published_win_rate(shared: Path) -> None:
    folder = shared / "data/benchmarks/alpaca_eval"
    loaded = read_alpaca_eval(folder)
    winners = [label["winner"] for label in loaded.labels]
    assert (winners.count(1), winners.count(2), winners.count(0)) == (584, 205, 16)  # as on the leaderboard
    rows = read_predictions([folder / "alpaca-7b/annotations.json"], loaded)
    summary = summary_of(BENCHMARK, loaded, rows)
    assert summary["score"] == 1
    assert summary["win_rate_annotator"] == summary["win_rate_judge"] == pytest.approx(BENCHMARK.baselines[0].value)


def test_the_win_rate_is_that_of_the_package(shared: Path) -> None:
    winrate = pytest.importorskip("alpaca_eval.metrics.winrate", reason="alpaca_eval is not installed")
    path = shared / "data/benchmarks/alpaca_eval/alpaca-7b/annotations.json"
    loaded = read_alpaca_eval(path)
    summary = summary_of(BENCHMARK, loaded, read_predictions([path], loaded))
    found = winrate.get_winrate(pandas.DataFrame(json.loads(path.read_text())))
    assert 100 * summary["win_rate_annotator"] == pytest.approx(found["win_rate"])


def test_every_preference_has_its_winner(tmp_path: Path) -> None:
    values = [1, 2, 0, 1.5, 1.2, 1.9, None, 1.0, 2.0]
    loaded = read_alpaca_eval(write_json(tmp_path / "a.json", [item(*one) for one in enumerate(values)]))
    assert [label["winner"] for label in loaded.labels] == [1, 2, 0, 0, 1, 2, None, 1, 2]
    summary = score(BENCHMARK, loaded, [(1,)] * len(values))
    assert (summary["score"], summary["total"]) == (pytest.approx(3 / 8), 8)
    assert summary["coverage"]["without_label"] == 1
    assert summary["win_rate_annotator"] == pytest.approx((0 + 1 + 0.5 + 0.5 + 0.2 + 0.9 + 0 + 1) / 8)
    assert summary["win_rate_judge"] == 0


def test_another_annotator_may_have_seen_the_outputs_exchanged(tmp_path: Path) -> None:
    loaded = read_alpaca_eval(write_json(tmp_path / "a.json", [item(0, 1), item(1, 2)]))
    turned = item(0, 2) | {"output_1": "b", "output_2": "a"}
    rows = read_predictions([write_json(tmp_path / "p.json", [turned, item(1, 1)])], loaded)
    assert [row["winner"] for row in rows] == [1, 1]
    with pytest.raises(InputError, match="item 0: these texts are no item"):
        read_predictions([write_json(tmp_path / "p.json", [item(9, 1)])], loaded)


@pytest.mark.parametrize("value", [3, -1, 0.5, True, "1", [1]])
def test_a_preference_that_is_none_is_named(tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError, match="item 1: preference is"):
        read_alpaca_eval(write_json(tmp_path / "a.json", [item(0, 1), item(1, value)]))
