"""Judgments in others' forms, read by the packages themselves where they are installed, else as their code reads them."""

import argparse
import asyncio
import csv
import json
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.evaluation.formats.writing import FORMATS, write_judgments

GAMES = [(1, 1), (2, 2), (1, 2), (0, 0), (0, 2), (None, 1)]  # (forward, reversed) winners in the record's own order


def game(winner: int | None, scores: list | None = None) -> dict:
    return {"pred_text": "7 5\nx", "status": "unparsed" if winner is None else "ok", "winner": winner, "scores": scores}


def judgments() -> list[dict]:
    merged = {(1, 1): 1, (2, 2): 2, (1, 2): 0, (0, 0): 0, (0, 2): 2, (None, 1): None}
    return [
        {
            "question_id": number,
            "pair_id": f"{number}/1-2",
            "question_body": f"q{number} =1+1",
            "answer1_body": "=HYPERLINK(1)",
            "answer2_body": "ü\n\ud800",
            "answer1_model_id": "base",
            "answer2_model_id": "model",
            "pred_model_id": "judge",
            "tstamp": 1.5,
            "order": "both",
            **game(merged[pair], None if merged[pair] is None else [7, 5]),
            "forward": game(pair[0], [9, 2]),
            "reversed": game(pair[1], [6, 5]),
        }
        for number, pair in enumerate(GAMES)
    ]


def write(tmp_path: Path, name: str, rows: list[dict] | None = None) -> Path:
    path = tmp_path / f"out.{name}"
    write_judgments(path, name, [(f"j:{number}", row) for number, row in enumerate(rows or judgments(), start=1)])
    return path


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_alpaca_eval_reads_the_annotations(tmp_path: Path) -> None:
    path = write(tmp_path, "alpaca_eval")
    preferences = [item["preference"] for item in json.loads(path.read_text())]
    assert preferences == [1, 2, 1.5, 1.5, 2, None]
    winrate = pytest.importorskip("alpaca_eval.metrics.winrate", reason="alpaca_eval is not installed")
    found = winrate.get_winrate(pandas.read_json(path))
    assert (found["n_wins"], found["n_wins_base"], found["n_draws"], found["n_total"]) == (2, 1, 2, 5)
    assert found["win_rate"] == pytest.approx(100 * (2 + 2 / 2) / 5)


def test_probabilities_make_the_preference_continuous(tmp_path: Path) -> None:
    row = judgments()[0] | {"probabilities": {"1": 0.7, "0": 0.2, "2": 0.1}}
    assert json.loads(write(tmp_path, "alpaca_eval", [row]).read_text())[0]["preference"] == pytest.approx(1 + 0.1 + 0.2 / 2)


def test_mt_bench_counts_a_win_where_both_games_agree(tmp_path: Path) -> None:
    """As FastChat's show_result.py: games with an error are left out, and what differs or is a tie is a tie."""
    rows = [row for row in lines(write(tmp_path, "mt_bench")) if "error" not in (row["g1_winner"], row["g2_winner"])]
    outcomes = [
        "tie" if row["g1_winner"] == "tie" or row["g1_winner"] != row["g2_winner"] else row[row["g1_winner"]] for row in rows
    ]
    assert outcomes == ["base", "model", "tie", "tie", "tie"]


def test_fastchat_shows_the_judgments(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    show_result = pytest.importorskip("fastchat.llm_judge.show_result", reason="fschat is not installed")
    asked = {"input_file": str(write(tmp_path, "mt_bench")), "model_list": None, "baseline_model": None}
    show_result.display_result_pairwise(argparse.Namespace(**asked, bench_name="mt_bench", judge_model="judge"))
    table = {line.split()[0]: line.split()[1:4] for line in capsys.readouterr().out.splitlines() if line.startswith(("b", "m"))}
    assert table["base"] == table["model"] == ["1", "1", "3"]


def test_arena_hard_counts_the_scores_of_the_model(tmp_path: Path) -> None:
    """As show_result.py of arena-hard-auto: game 2 shows the model as A, `>>` counts three times, null games drop out."""
    worth = {"A>B": [1], "A>>B": [1] * 3, "A=B": [0.5], "B>A": [0], "B>>A": [0] * 3}
    rows = lines(write(tmp_path, "arena_hard"))
    kept = [row["games"] for row in rows if None not in row["games"]]
    scores = [worth[second["score"]] + [1 - score for score in worth[first["score"]]] for first, second in kept]
    assert scores == [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0.5, 0.5], [1, 0.5]]
    assert {(row["model"], row["baseline"], row["judge"]) for row in rows} == {("model", "base", "judge")}
    assert [row["uid"] for row in rows] == [str(number) for number in range(len(GAMES))]


def test_arena_hard_of_one_order_has_one_game(tmp_path: Path) -> None:
    base = judgments()[0]
    single = {name: value for name, value in base.items() if name not in ("forward", "reversed")}
    forward, back = (single | game(1, [9, 2]) | {"order": order} for order in ("forward", "reversed"))
    rows = lines(write(tmp_path, "arena_hard", [forward, back]))
    assert [[one and one["score"] for one in row["games"]] for row in rows] == [["A>>B", None], [None, "B>>A"]]


def test_lmarena_has_a_battle_a_game_as_it_was_shown(tmp_path: Path) -> None:
    rows = lines(write(tmp_path, "lmarena"))
    assert len(rows) == 2 * len(GAMES) - 1
    winners = [row[row["winner"]] if row["winner"] != "tie" else "tie" for row in rows]
    named = {1: "base", 2: "model", 0: "tie"}
    assert winners == [named[winner] for pair in GAMES for winner in pair if winner is not None]
    assert [(row["model_a"], row["model_b"]) for row in rows[:2]] == [("base", "model"), ("model", "base")]
    assert [row["question_id"] for row in rows[:3]] == ["0", "0", "1"]


def test_evalica_ranks_the_battles(tmp_path: Path) -> None:
    evalica = pytest.importorskip("evalica", reason="evalica is not installed")
    rows = pandas.read_json(write(tmp_path, "lmarena"), lines=True)
    outcome = {"model_a": evalica.Winner.X, "model_b": evalica.Winner.Y, "tie": evalica.Winner.Draw}
    result = evalica.average_win_rate(rows["model_a"], rows["model_b"], [outcome[winner] for winner in rows["winner"]])
    wins = sum({2: 1, 0: 0.5, 1: 0}[winner] for pair in GAMES for winner in pair if winner is not None)
    assert result.scores["model"] == pytest.approx(wins / len(rows), abs=1e-6)


def test_inspect_ai_scores_a_log(tmp_path: Path) -> None:
    path = write(tmp_path, "inspect_ai").rename(tmp_path / "scores.jsonl")
    assert [row["value"] for row in lines(path)] == [0, 1, 0.5, 0.5, 1]
    pytest.importorskip("inspect_ai", reason="inspect_ai is not installed")
    from inspect_ai.model import ChatMessageUser, ModelName
    from inspect_ai.scorer import Target, precomputed_scores
    from inspect_ai.solver import TaskState

    scorer = precomputed_scores(str(path))
    found = []
    for row in judgments():
        state = TaskState(ModelName("mockllm/model"), row["pair_id"], 1, "q", [ChatMessageUser(content="q")])
        found.append(asyncio.run(scorer(state, Target(""))))
    assert [None if score is None else score.value for score in found] == [0, 1, 0.5, 0.5, 1, None]
    assert found[0].metadata["winner"] == 1


def test_csv_is_read_by_pandas_and_runs_nothing_in_a_spreadsheet(tmp_path: Path) -> None:
    path = write(tmp_path, "csv")
    table = pandas.read_csv(path)
    assert len(table) == len(GAMES)
    assert list(table["forward.winner"].fillna(-1)) == [-1 if one is None else one for one, _ in GAMES]
    assert set(table["answer1_body"]) == {"'=HYPERLINK(1)"}
    assert set(table["answer2_body"]) == {"ü\n?"}
    assert table["question_body"][0] == "q0 =1+1"
    assert json.loads(table["scores"][0]) == [7, 5]
    with path.open(newline="", encoding="utf-8") as file:
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for row in csv.reader(file) for cell in row)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_every_start_that_a_spreadsheet_runs_is_quoted(tmp_path: Path, start: str) -> None:
    row = judgments()[0] | {"answer1_body": f"{start}cmd|'/c calc'!A0", "score_gap": -3}
    path = write(tmp_path, "csv", [row])
    with path.open(newline="", encoding="utf-8") as file:
        (cells,) = csv.DictReader(file)
    assert cells["answer1_body"] == f"'{start}cmd|'/c calc'!A0"
    assert cells["score_gap"] == "-3"  # a number is no formula


def test_parquet_keeps_texts_and_types(tmp_path: Path) -> None:
    table = pandas.read_parquet(write(tmp_path, "parquet"))
    assert set(table["answer1_body"]) == {"=HYPERLINK(1)"}
    assert table["question_id"].tolist() == list(range(len(GAMES)))
    assert table["tstamp"].dtype == float
    mixed = [judgments()[0] | {"question_id": "a"}, judgments()[1]]
    assert pandas.read_parquet(write(tmp_path, "parquet", mixed))["question_id"].tolist() == ['"a"', "1"]


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_can_be_read_as_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / ("out.csv" if name == "csv" else "out.jsonl")
    counts = write_judgments(path, name, [("j:1", row) for row in judgments()])
    assert len(read_rows(path)) == counts["written"]
    assert (counts["judgments"], counts["without_verdict"]) == (len(GAMES), 1)


def test_rows_that_are_no_judgments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="j:1: the field 'pred_text'"):
        write(tmp_path, "csv", [{"question_id": 1}])
    with pytest.raises(InputError, match="j:1: is no judgment of a pair"):
        write(tmp_path, "lmarena", [judgments()[0] | {"answer3_body": "c"}])
    assert list(tmp_path.iterdir()) == []


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
OWN = ["question_body", "answer1_body", "answer1_model_id", "extra", "explanation", "category", "turn", "dataset"]


@pytest.mark.parametrize("name", FORMATS)
@given(fields=st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(OWN, ANY)), min_size=1, max_size=3))
def test_fields_of_any_kind_can_be_written(tmp_path_factory: pytest.TempPathFactory, name: str, fields: list[dict]) -> None:
    path = tmp_path_factory.mktemp("w") / ("out.csv" if name == "csv" else "out.jsonl")
    rows = [(f"j:{number}", judgments()[0] | extra) for number, extra in enumerate(fields)]
    assert write_judgments(path, name, rows)["judgments"] == len(rows)
    if name != "csv":
        assert read_rows(path)
