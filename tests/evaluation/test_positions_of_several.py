"""Judgments of several answers by judges that are known: one goes by the position, one by the answers, one by neither."""

import json

import pytest

from judgelm_jax.commands import rank
from judgelm_jax.commands.command_line import run
from judgelm_jax.evaluation.position_bias import PositionCounts, count_positions
from judgelm_jax.prompts.arrangements import arrangements, in_own_order, mean_scores


def judged(question, score, answers=4, wanted=4):
    """A judgment whose scores are `score(answer, position)`, both from 1."""
    shown = arrangements(answers, orders=None, wanted=wanted, identity=str(question), seed=0)
    own = [in_own_order([score(answer, place) for place, answer in enumerate(order, 1)], order) for order in shown]
    return {
        "question_id": question,
        "question_body": "q",
        **{f"answer{number}_body": "a" for number in range(1, answers + 1)},
        **{f"answer{number}_model_id": f"model {number}" for number in range(1, answers + 1)},
        "status": "ok",
        "order": "arrangements",
        "scores": list(mean_scores(own)),
        "arrangements": [{"order": list(order), "scores": list(scores)} for order, scores in zip(shown, own, strict=True)],
    }


@pytest.mark.parametrize("answers", [3, 4, 5])
@pytest.mark.parametrize("wanted", [2, 3])
def test_each_judge_is_counted_as_what_it_is(answers, wanted):
    judges = {
        "one position": (lambda answer, place: 9 if place == 2 else 3, PositionCounts(7, 0, 7)),
        "two positions": (lambda answer, place: 9 if place > answers - 2 else 3, PositionCounts(7, 0, 7)),
        "answers": (lambda answer, place: answer, PositionCounts(7, 7, 0)),
        "answers, and a little the position": (lambda answer, place: 5 * answer + place / 10, PositionCounts(7, 7, 0)),
        "all alike": (lambda answer, place: 5, PositionCounts(7, 7, 0)),
    }
    for name, (score, expected) in judges.items():
        assert count_positions(judged(question, score, answers, wanted) for question in range(7)) == expected, name


def test_what_was_shown_once_or_has_no_scores_does_not_count():
    whole = judged(1, lambda answer, place: place)
    once, pair = judged(2, lambda answer, place: place, wanted=1), {"forward": {"winner": 1}, "reversed": {"winner": 2}}
    unparsed = {**whole, "arrangements": [whole["arrangements"][0], {**whole["arrangements"][1], "scores": None}]}
    strange = [{"arrangements": value} for value in (None, 3, [1], [{"order": "x", "scores": [1]}], [{"order": [1, 1, 1]}])]
    doubled = {"arrangements": [{"order": [1, 1, 2], "scores": [1, 2, 3]}] * 2}
    assert count_positions([once, pair, unparsed, *strange, doubled]) == PositionCounts(0, 0, 0)
    assert count_positions([whole, once]) == PositionCounts(1, 0, 1)


@pytest.mark.parametrize("follows", [True, False])
def test_a_judge_of_four_that_follows_the_position_is_named_before_the_models(tmp_path, capsys, follows):
    rows = [
        judged(question, (lambda answer, place: place) if follows else (lambda answer, place: answer)) for question in range(20)
    ]
    path, output = tmp_path / "j.jsonl", tmp_path / "ranking.json"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = [f"--judgments={path}", f"--output={output}", f"--report={tmp_path / 'report'}"]
    assert run(rank.main, rank.FLAGS, "rank", flags) == 0
    said, warning = capsys.readouterr().out, "do not rank by them"
    assert (warning in said) == (warning in (tmp_path / "report/report.md").read_text()) == follows
    assert json.loads(output.read_text())["positions"] == {
        "records": 20,
        "same_answers": 0 if follows else 20,
        "same_position": 20 if follows else 0,
        "follow_position": follows,
    }
    if follows:
        assert said.index(warning) < said.index("model ")
