"""Rankings of made-up judgments: read from files, held against counting by hand and brute force."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.commands import evaluate
from judgelm_jax.commands import rank as rank_command
from judgelm_jax.commands.command_line import run
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.ranking import covariates
from judgelm_jax.evaluation.ranking.comparisons import Comparison, read_comparisons
from judgelm_jax.evaluation.ranking.ranking import cyclic_share, rank
from judgelm_jax.evaluation.ranking.text import in_words, percent, table


def won(first, second, result, question):
    return Comparison(first, second, result, str(question), ("", ""))


def judgment(**fields):
    return {
        "question_id": 1,
        "question_body": "q",
        "answer1_body": "a",
        "answer2_body": "b",
        "answer1_model_id": "alpha",
        "answer2_model_id": "beta",
        "pred_text": "8 4",
        "status": "ok",
        "order": "forward",
        "winner": 1,
        **fields,
    }


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


ROWS = [
    won("alpha", "beta", 1.0, 1),
    won("beta", "alpha", 0.5, 2),
    won("alpha", "beta", 1.0, 3),
    won("gamma", "beta", 0.0, 1),
    won("gamma", "beta", 1.0, 2),
    won("gamma", "alpha", 0.0, 3),
]


def test_win_rates_and_matrix_are_those_counted_by_hand():
    ranking = rank(ROWS)
    rates = {model["name"]: model["win_rate"] for model in ranking["models"]}
    assert rates == {"alpha": 3.5 / 4, "beta": 1.5 / 5, "gamma": 1 / 3}
    assert ranking["matrix"]["alpha"] == {"beta": 2.5 / 3, "gamma": 1.0}
    assert ranking["matrix"]["beta"]["gamma"] == ranking["matrix"]["gamma"]["beta"] == 0.5
    assert ranking["compared"]["alpha"] == {"beta": 3, "gamma": 1}
    assert (ranking["comparisons"], ranking["clusters"]) == (6, 3)
    assert ranking["models"][0]["name"] == "alpha"
    assert in_words(ranking).startswith("alpha ")
    assert len(table(ranking).splitlines()) == 5


def test_exact_ties_name_no_best_model():
    ties = [won(one, other, 0.5, question) for question in range(4) for one, other in itertools.combinations("abc", 2)]
    assert in_words(rank(ties)).startswith("a, b and c are level at the top: ")


def test_who_is_above_whom_adds_up_and_every_interval_holds_its_value():
    ranking = rank(ROWS)
    for one, other in itertools.combinations(("alpha", "beta", "gamma"), 2):
        assert ranking["above"][one][other] + ranking["above"][other][one] == pytest.approx(1, abs=1e-3)
    for model in ranking["models"]:
        for field in ("strength", "win_rate"):
            low, high = model[f"{field}_interval"]
            assert low < model[field] < high
        low, high = model["rank_interval"]
        assert 1 <= low <= high <= 3


def test_a_ranking_does_not_depend_on_which_model_was_named_first():
    exchanged = [won(row.second, row.first, 1 - row.result, row.cluster) for row in ROWS]
    for mine, other in zip(rank(ROWS)["models"], rank(exchanged)["models"], strict=True):
        assert mine["name"] == other["name"]
        assert mine["strength"] == pytest.approx(other["strength"], abs=1e-8)


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 3)))
)
def test_the_share_of_circles_is_that_of_brute_force(rows):
    kept = {}
    for first, second, result, question in rows:
        if first != second:
            kept[question, frozenset((first, second))] = won(first, second, result, question)
    total = cycles = 0
    for question in range(4):
        for three in itertools.combinations("abcd", 3):
            sides = [kept.get((question, frozenset(pair))) for pair in itertools.combinations(three, 2)]
            if all(side is not None and side.result != 0.5 for side in sides):
                winners = [side.first if side.result == 1 else side.second for side in sides]
                total += 1
                cycles += len(set(winners)) == 3  # everybody won once
    expected = cycles / total if total else None
    assert cyclic_share(list(kept.values())) == expected


def test_the_next_comparison_is_one_of_two_models_that_look_alike():
    rng = np.random.default_rng(0)
    rows = []
    for question in range(60):
        for one, other, chance in (
            ("best", "good", 0.9),
            ("good", "twin", 0.52),
            ("best", "twin", 0.9),
            ("twin", "last", 0.95),
        ):
            rows.append(won(one, other, float(rng.random() < chance), question))
    first = rank(rows)["next_comparisons"][0]
    assert set(first["models"]) == {"good", "twin"}
    assert first["gain"] > 0
    assert first["needed"] is None or first["needed"] > 0


def test_covariates_count_what_a_person_counts():
    text = "# Title\n\nSome **bold** words and __more__.\n- one\n- two\n3. three\n"
    assert covariates.names(["length", "style"]) == ["length", "headers", "lists", "bold"]
    assert covariates.features(text, ["length", "style"]) == [len(text.split()), 1, 3, 2]
    columns = covariates.differences([("a b c", "a"), ("a", "a b c"), ("a", "b")], ["length"])
    np.testing.assert_allclose(columns[:, 0] / columns[0, 0], [1, -1, 0])
    assert columns[:, 0].std() == pytest.approx(1)


def test_control_for_length_tells_a_long_winded_model_from_a_good_one():
    """A judge that goes by length alone, and two models of which one is longer: at equal length they are alike."""
    rng = np.random.default_rng(1)
    rows = []
    for question in range(400):
        long, short = "w " * int(rng.integers(20, 60)), "w " * int(rng.integers(10, 50))
        lean = (len(long) - len(short)) / (len(long) + len(short))
        result = float(rng.random() < 1 / (1 + np.exp(-3 * lean)))
        rows.append(Comparison("windy", "plain", result, str(question), (long, short)))
    plain, controlled = rank(rows), rank(rows, ["length"])
    assert plain["above"]["windy"]["plain"] > 0.975
    low, high = next(model for model in controlled["models"] if model["name"] == "windy")["strength_interval"]
    assert low < 0 < high
    assert controlled["effects"]["length"]["interval"][0] > 0


def test_judgments_of_pairs_and_of_several_answers_are_read(tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [judgment(), judgment(question_id=2, winner=0, pred_text="5 5")])
    several = judgment(answer3_body="c", answer3_model_id="gamma", scores=[3, 7, 7])
    del several["winner"]
    read = read_comparisons([pairs, write(tmp_path / "several.jsonl", [several])])
    found = [(row.first, row.second, row.result, row.cluster) for row in read.rows]
    assert found == [
        ("alpha", "beta", 1.0, "1"),
        ("alpha", "beta", 0.5, "2"),
        ("alpha", "beta", 0.0, "1"),
        ("alpha", "gamma", 0.0, "1"),
        ("beta", "gamma", 0.5, "1"),
    ]
    assert read.undecided == 0


@pytest.mark.parametrize(("winners", "follows"), [((2, 1), True), ((1, 1), False), ((1, 2), True)])
def test_a_judge_that_follows_the_position_is_named_beside_the_ranking(tmp_path, capsys, winners, follows):
    rows = []
    for question in range(25):
        forward, back = ({"pred_text": "", "status": "ok", "winner": winner} for winner in winners)
        merged = {"winner": winners[0] if winners[0] == winners[1] else question % 3, "forward": forward, "reversed": back}
        rows.append(judgment(question_id=question, status="ok", order="both", **merged))
    path, output = write(tmp_path / "j.jsonl", rows), tmp_path / "ranking.json"
    arguments = [f"--judgments={path}", f"--output={output}", f"--report={tmp_path / 'report'}"]
    assert run(rank_command.main, rank_command.FLAGS, "rank", arguments) == 0
    said = capsys.readouterr().out
    assert f"names the same winner in {'0.0' if follows else '100.0'} % of 25 pairs" in said
    assert ("do not rank by them" in said) == follows
    if follows:  # before anything is said of the models
        assert said.index("do not rank by them") < said.index("alpha")
    assert ("do not rank by them" in (tmp_path / "report/report.md").read_text()) == follows
    assert json.loads(output.read_text())["orders"]["follow_position"] == follows
    assert run(evaluate.main, evaluate.FLAGS, "evaluate", [f"--predictions={path}"]) == 0
    assert ("do not rank by them" in capsys.readouterr().out) == follows


def test_judgments_without_a_verdict_are_counted(tmp_path):
    path = write(tmp_path / "j.jsonl", [judgment(), judgment(question_id=2, winner=None, pred_text="?", status="unparsed")])
    read = read_comparisons([path])
    assert (len(read.rows), read.undecided) == (1, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer1_model_id": None}, "answer1_model_id is missing"),
        ({"answer2_model_id": 7}, "answer2_model_id is missing or no text"),
        ({"answer2_model_id": "alpha"}, "both answers are of the model 'alpha'"),
        ({"answer2_body": None}, "there are 1 answers"),
        ({"answer2_body": ["b"]}, "an answer is no text"),
        ({"answer3_body": "c", "scores": [1, 2]}, "a list of 3 numbers"),
        ({"answer3_body": "c", "scores": [1, 2, float("nan")]}, "j.jsonl:1"),
    ],
)
def test_a_wrong_judgment_is_named_by_its_line(tmp_path, change, message):
    path = write(tmp_path / "j.jsonl", [judgment(**change)])
    with pytest.raises(InputError, match=rf"j\.jsonl:1: .*{message}|{message}"):
        read_comparisons([path])


def test_a_file_counts_once_and_holds_one_kind_of_judgment(tmp_path):
    pairs = write(tmp_path / "pairs.jsonl", [judgment()])
    with pytest.raises(InputError, match="is given twice"):
        read_comparisons([pairs, tmp_path / "." / "pairs.jsonl"])
    doubled = [judgment(answer3_body="c", answer3_model_id="gamma", scores=[3, 7, 7])] * 2
    for rows in (doubled, [judgment()] * 2):
        with pytest.raises(InputError, match=r"doubled\.jsonl:2: .*'1' is already in line 1"):
            read_comparisons([write(tmp_path / "doubled.jsonl", rows)])
    three = judgment(pair_id="x", answer3_body="c", answer3_model_id="gamma", scores=[3, 7, 7])
    with pytest.raises(InputError, match="of two answers and of 3 are mixed"):
        read_comparisons([write(tmp_path / "mixed.jsonl", [judgment(), three])])


def test_one_model_is_no_ranking():
    with pytest.raises(InputError, match="compare 0 models"):
        rank([])


def test_shares_never_round_to_certainty():
    assert [percent(x) for x in (0, 0.0001, 0.5, 0.9999, 1)] == ["0.0 %", "<0.1 %", "50.0 %", ">99.9 %", "100.0 %"]


def test_questions_and_groups_that_pandas_made_floats_are_those_of_whole_numbers(tmp_path):
    values = [(1, 2), (1.0, 2.0), ("1", "2"), (1.5, 2)]
    rows = [judgment(pair_id=str(number), question_id=q, turn=turn) for number, (q, turn) in enumerate(values)]
    found = read_comparisons([write(tmp_path / "j.jsonl", rows)], by="turn").rows
    assert [row.cluster for row in found] == ["1", "1", "1", "1.5"]
    assert {row.group for row in found} == {"2"}


def test_decide_names_the_winner_of_distributions(tmp_path, capsys):
    rows = [judgment(winner=1, scores=[4, 6], expected_scores=[5.2, 5.1], question_id=question) for question in range(3)]
    path = write(tmp_path / "j.jsonl", rows)
    for decide, rate in (("winner", 1.0), ("mean", 1.0), ("mode", 0.0)):
        output = tmp_path / f"{decide}.json"
        flags = [f"--judgments={path}", f"--decide={decide}", f"--output={output}"]
        assert run(rank_command.main, rank_command.FLAGS, "rank", flags) == 0
        rates = {model["name"]: model["win_rate"] for model in json.loads(output.read_text())["models"]}
        assert rates == {"alpha": rate, "beta": 1 - rate}
    plain = write(tmp_path / "plain.jsonl", [judgment()])
    assert run(rank_command.main, rank_command.FLAGS, "rank", [f"--judgments={plain}", "--decide=mean"]) == 2
    assert "plain.jsonl:1: --decide=mean needs" in capsys.readouterr().err


def test_decide_takes_the_scores_of_several_answers(tmp_path, capsys):
    def several(**fields):
        row = judgment(answer3_body="c", answer3_model_id="gamma", order="arrangements", scores=[6, 4, 6], **fields)
        del row["winner"]
        return row

    path = write(tmp_path / "j.jsonl", [several(expected_scores=[5.1, 5.2, 5.3])])
    by_scores = [("alpha", "beta", 1.0), ("alpha", "gamma", 0.5), ("beta", "gamma", 0.0)]
    by_means = [("alpha", "beta", 0.0), ("alpha", "gamma", 0.0), ("beta", "gamma", 0.0)]
    for decide, expected in (("winner", by_scores), ("mode", by_scores), ("mean", by_means)):
        found = read_comparisons([path], decide=decide).rows
        assert [(row.first, row.second, row.result) for row in found] == expected
    plain = write(tmp_path / "plain.jsonl", [several()])
    assert len(read_comparisons([plain]).rows) == 3
    for decide in ("mean", "mode"):
        assert run(rank_command.main, rank_command.FLAGS, "rank", [f"--judgments={plain}", f"--decide={decide}"]) == 2
        assert f"plain.jsonl:1: --decide={decide} needs" in capsys.readouterr().err
    wrong = write(tmp_path / "wrong.jsonl", [several(expected_scores=[5.1, 5.2])])
    with pytest.raises(InputError, match=r"wrong\.jsonl:1: expected_scores is .* a list of 3 numbers"):
        read_comparisons([wrong], decide="mean")
