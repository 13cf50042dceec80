"""The rules for pairs against tables written by hand, one entry for every combination of verdicts."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks import rules
from judgelm_jax.evaluation.benchmarks.benchmark import Benchmark, Loaded, imported
from judgelm_jax.evaluation.benchmarks.scoring import summarize_benchmark

WINNERS = (1, 2, 0, None)
RECORD = {"question_id": "q", "question_body": "", "answer1_body": "", "answer2_body": ""}


def credits(protocol, label, *games):
    row = imported({**RECORD, "pair_id": "p"}, "judge", *games)
    return protocol.score([{"question_id": "q", "pair_id": "p", "winner": label}], [row]).credits[0]


@pytest.mark.parametrize(("label", "game"), list(itertools.product((1, 2, 0), WINNERS)))
def test_agreement_of_one_order_is_the_same_winner(label, game) -> None:
    protocol = rules.agreement("forward", "", rules.forward)
    assert credits(protocol, label, game) == (label == game)


# (forward, reversed) -> the winner where a conflict is a tie
CONFLICT = {
    (1, 1): 1, (1, 2): 0, (1, 0): 0, (1, None): None,
    (2, 1): 0, (2, 2): 2, (2, 0): 0, (2, None): None,
    (0, 1): 0, (0, 2): 0, (0, 0): 0, (0, None): None,
    (None, 1): None, (None, 2): None, (None, 0): None, (None, None): None,
}  # fmt: skip
# (forward, reversed) -> what the label 1 earns where each game adds 1 when right and takes 1 when it names the other
SUM_FOR_FIRST = {
    (1, 1): 1, (1, 2): 0, (1, 0): 1, (1, None): 1,
    (2, 1): 0, (2, 2): 0, (2, 0): 0, (2, None): 0,
    (0, 1): 1, (0, 2): 0, (0, 0): 0, (0, None): 0,
    (None, 1): 1, (None, 2): 0, (None, 0): 0, (None, None): 0,
}  # fmt: skip


@pytest.mark.parametrize(("label", "games"), list(itertools.product((1, 2, 0), CONFLICT)))
def test_a_conflict_is_a_tie(label, games) -> None:
    protocol = rules.agreement("both", "", rules.conflict_is_tie)
    assert credits(protocol, label, *games) == (CONFLICT[games] == label)


@pytest.mark.parametrize("games", SUM_FOR_FIRST)
def test_the_sum_of_both_games_must_be_positive(games) -> None:
    protocol = rules.credited("both", "", rules.positive_sum)
    assert credits(protocol, 1, *games) == SUM_FOR_FIRST[games]
    mirrored = tuple({1: 2, 2: 1}.get(winner, winner) for winner in games)
    assert credits(protocol, 2, *mirrored) == SUM_FOR_FIRST[games]


@pytest.mark.parametrize(("label", "games"), list(itertools.product((1, 2, 0), CONFLICT)))
def test_mean_and_both(label, games) -> None:
    right = [game == label for game in games]
    assert credits(rules.credited("both", "", rules.mean_credit), label, *games) == sum(right) / 2
    assert credits(rules.credited("both", "", rules.both_right), label, *games) == all(right)


@pytest.mark.parametrize(("game", "earned"), [(1, 1), (2, 0), (0, 0.5), (None, 0)])
def test_a_tie_is_a_half(game, earned) -> None:
    protocol = rules.agreement("forward", "", rules.forward, rules.half_for_tie(rules.forward))
    assert credits(protocol, 1, game) == earned


def test_a_protocol_of_both_orders_refuses_judgments_of_one() -> None:
    for credit in (rules.mean_credit, rules.both_right, rules.positive_sum):
        with pytest.raises(InputError, match="reversed order"):
            credits(rules.credited("both", "", credit), 1, 1)


@given(st.lists(st.tuples(st.sampled_from((1, 2, 0, None)), st.sampled_from(WINNERS), st.booleans()), min_size=1, max_size=30))
def test_the_score_is_the_share_of_right_verdicts_among_labels_that_were_judged(items) -> None:
    labels = [{"question_id": str(number), "winner": label} for number, (label, _, _) in enumerate(items)]
    records = [{**RECORD, "question_id": str(number)} for number in range(len(items))]
    rows = [imported(record, "j", game) for record, (_, game, judged) in zip(records, items, strict=True) if judged]
    protocol = rules.agreement("forward", "", rules.forward)
    benchmark = Benchmark("b", "t", "s", {"r": ""}, {"p": protocol}, read=lambda path, name: Loaded("pair", [], [], {}))
    loaded = Loaded("pair", records, labels, {"converted": 0})
    if not rows:
        with pytest.raises(InputError, match="no judgment has an id"):
            summarize_benchmark(benchmark, loaded, rows, reduction="r", protocol="p")
        return
    counted = [(label, game) for label, game, judged in items if judged and label is not None]
    summary = summarize_benchmark(benchmark, loaded, rows, reduction="r", protocol="p")
    assert summary["total"] == len(counted)
    if counted:
        assert summary["score"] == pytest.approx(float(Fraction(sum(a == b for a, b in counted), len(counted))))
    assert summary["coverage"]["judged"] == len(rows)
    assert summary["coverage"]["missing"] == len(items) - len(rows)
