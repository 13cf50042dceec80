"""MT-Bench's human votes in the layout of their records."""

import itertools
from pathlib import Path

import pandas
import pytest
from benchmark_files import score, summary_of, write_json, write_lines
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.mt_bench import BENCHMARK, read_mt_bench, read_predictions


def conversation(model: str, question: int) -> list[dict]:
    return [
        {"content": text, "role": role}
        for turn in (1, 2)
        for role, text in (("user", f"ask{question}.{turn}"), ("assistant", f"{model}{question}.{turn}"))
    ]


def vote(winner: str, a: str = "m1", b: str = "m2", question: int = 81, turn: int = 1, judge: str = "expert_1") -> dict:
    return {
        "question_id": question,
        "model_a": a,
        "model_b": b,
        "winner": winner,
        "judge": judge,
        "conversation_a": conversation(a, question),
        "conversation_b": conversation(b, question),
        "turn": turn,
    }


def test_votes_on_one_pair_are_one_record_whatever_their_order(tmp_path: Path) -> None:
    votes = [vote("model_a"), vote("model_a", "m2", "m1"), vote("tie"), vote("tie (bothbad)", turn=2)]
    loaded = read_mt_bench(write_lines(tmp_path / "human.jsonl", *votes))
    assert [label["votes"] for label in loaded.labels] == [[1, 2, 0], [0]]
    first, second = loaded.records
    assert (first["question_body"], first["answer1_body"], first["answer2_body"]) == ("ask81.1", "m181.1", "m281.1")
    assert second["question_body"] == "[Turn 1]\nask81.1\n\n[Turn 2]\nask81.2"
    assert second["answer2_body"] == "[Turn 1]\nm281.1\n\n[Turn 2]\nm281.2"
    assert second["conversation_1"] == conversation("m1", 81)
    assert [record["question_id"] for record in loaded.records] == [81, 81]


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_other_forms_give_the_same(tmp_path: Path, form: str) -> None:
    votes = [vote("model_a"), vote("model_b", turn=2), vote("tie", question=82)]
    lines = read_mt_bench(write_lines(tmp_path / "x.jsonl", *votes))
    (tmp_path / "data").mkdir()
    if form == "json":
        write_json(tmp_path / "data/human_judgments.json", votes)
    else:
        pandas.DataFrame(votes).to_parquet(tmp_path / "data/human-00000-of-00001-25f4910818759289.parquet")
        pandas.DataFrame(votes).to_parquet(tmp_path / "data/gpt4_pair-00000-of-00001.parquet")
    assert read_mt_bench(tmp_path) == lines


VOTES = st.lists(st.sampled_from(("model_a", "model_b", "tie")), min_size=1, max_size=4)


@given(st.lists(st.tuples(VOTES, st.sampled_from((1, 2, 0)), st.sampled_from((1, 2, 0))), min_size=1, max_size=6))
def test_agreement_is_pooled_over_votes(tmp_path_factory, items: list) -> None:
    """Counted again vote by vote: setup S1 with ties, setup S2 without ties of either side."""
    votes = [vote(one, question=number) for number, (given_, _, _) in enumerate(items) for one in given_]
    path = write_lines(tmp_path_factory.mktemp("mt") / "human.jsonl", *votes)
    for reduction, ban in (("all_votes", ()), ("decided_votes", (0,))):
        loaded = read_mt_bench(path, reduction)
        agree = total = 0
        for given_, one, other in items:
            verdict = one if one == other else 0
            for name in given_:
                cast = {"model_a": 1, "model_b": 2, "tie": 0}[name]
                if verdict not in ban and cast not in ban:
                    total += 1
                    agree += cast == verdict
        summary = score(BENCHMARK, loaded, [(one, other) for _, one, other in items], reduction=reduction)
        assert summary["score"] == (pytest.approx(agree / total) if total else None)
        pairs = [
            (a, b) for given_, _, _ in items for a, b in itertools.combinations(given_, 2) if not ban or "tie" not in (a, b)
        ]
        expected = sum(a == b for a, b in pairs) / len(pairs) if pairs else None
        assert summary["people_agreement"] == (pytest.approx(expected) if pairs else None)


def test_gpt4s_published_votes_are_predictions(tmp_path: Path) -> None:
    people = [vote("model_a"), vote("model_b", question=82), vote("tie", question=83)]
    loaded = read_mt_bench(write_lines(tmp_path / "human.jsonl", *people))
    judge = ["gpt-4", "pair-v2"]
    verdicts = [
        vote("model_b", "m2", "m1", judge=judge),
        vote("model_a", question=82, judge=judge),
        vote("tie (inconsistent)", question=83, judge=judge),
        vote("model_a", question=99, judge=judge),
    ]
    rows = read_predictions([write_lines(tmp_path / "gpt4.jsonl", *verdicts)], loaded)
    assert [row["winner"] for row in rows] == [1, 1, 0]
    assert summary_of(BENCHMARK, loaded, rows)["score"] == pytest.approx(2 / 3)
    with pytest.raises(InputError, match=r"gpt4\.jsonl:2: a second verdict"):
        read_predictions([write_lines(tmp_path / "gpt4.jsonl", verdicts[0], verdicts[0])], loaded)


def test_votes_of_the_authors_do_not_count(tmp_path: Path) -> None:
    votes = [vote("model_a"), vote("model_b", judge="author_2"), vote("tie", question=82, judge="author_0")]
    loaded = read_mt_bench(write_lines(tmp_path / "human.jsonl", *votes))
    assert [label["votes"] for label in loaded.labels] == [[1]]
    assert loaded.counts["votes_of_authors"] == 2


def test_the_majority_is_one_vote(tmp_path: Path) -> None:
    votes = [vote(name) for name in ("model_b", "model_b", "tie")] + [vote(name, question=82) for name in ("model_a", "tie")]
    loaded = read_mt_bench(write_lines(tmp_path / "human.jsonl", *votes), "majority")
    assert [label["votes"] for label in loaded.labels] == [[2], [0]]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"winner": "m1"}, "winner is 'm1'"),
        ({"winner": None}, "winner is None"),
        ({"turn": 3}, "turn is 3"),
        ({"conversation_a": []}, "no list of 2 messages"),
        ({"conversation_b": [{"role": "user", "content": 3}, {}]}, "no list of 2 messages"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, wrong: dict, message: str) -> None:
    path = write_lines(tmp_path / "human.jsonl", vote("tie", question=80), vote("tie") | wrong)
    with pytest.raises(InputError, match=rf"human\.jsonl:2: .*{message}"):
        read_mt_bench(path)


def game(one: str, two: str, models: tuple[str, str] = ("m1", "m2"), question: int = 81, turn: int = 1) -> dict:
    """A line of FastChat's `model_judgment/gpt-4_pair.jsonl`: the second game shows the answers exchanged."""
    texts = {f"g{number}_{field}": f"{field} {number}" for number in (1, 2) for field in ("user_prompt", "judgment")}
    names = {"question_id": question, "model_1": models[0], "model_2": models[1], "g1_winner": one, "g2_winner": two}
    return {**names, "judge": ["gpt-4", "pair-v2"], **texts, "turn": turn, "tstamp": 1687222775.0}


def test_the_games_that_fastchat_writes_are_predictions(tmp_path: Path) -> None:
    people = [vote("model_a", question=question) for question in (81, 82, 83, 84)] + [vote("model_b", turn=2)]
    loaded = read_mt_bench(write_lines(tmp_path / "human.jsonl", *people))
    games = [
        game("model_1", "model_1"),
        game("model_1", "tie", ("m2", "m1"), 82),  # the record shows m1 first, so its forward game is the second
        game("model_2", "model_1", question=83),
        game("error", "model_1", question=84),
        game("model_2", "model_2", turn=2),
        game("tie", "tie", ("m1", "other")),
    ]
    rows = read_predictions([write_lines(tmp_path / "gpt-4_pair.jsonl", *games)], loaded)
    assert [(row["forward"]["winner"], row["reversed"]["winner"]) for row in rows] == [
        (1, 1),
        (0, 2),
        (2, 1),
        (None, 1),
        (2, 2),
    ]
    assert {(row["pred_model_id"], row["pred_text"]) for row in rows} == {("gpt-4", "judgment 1")}
    assert summary_of(BENCHMARK, loaded, rows)["score"] == pytest.approx(2 / 5)  # a conflict is a tie, an error is wrong


@pytest.mark.parametrize(
    ("wrong", "message"), [({"g1_winner": "A"}, "winner is 'A'"), ({"g2_winner": []}, "winner is"), ({"turn": 0}, "turn is 0")]
)
def test_a_wrong_game_is_named(tmp_path: Path, wrong: dict, message: str) -> None:
    loaded = read_mt_bench(write_lines(tmp_path / "human.jsonl", vote("tie")))
    path = write_lines(tmp_path / "g.jsonl", game("tie", "tie", question=99), game("tie", "tie") | wrong)
    with pytest.raises(InputError, match=rf"g\.jsonl:2: .*{message}"):
        read_predictions([path], loaded)
