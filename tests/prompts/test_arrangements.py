"""Orders of answers, and what their scores say together: held against counting by hand."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.errors import InputError
from judgelm_jax.prompts import arrangements
from judgelm_jax.prompts.arrangements import FORWARD, REVERSED


def shown(answers, wanted=None, orders=None, identity="7", seed=0):
    return arrangements.arrangements(answers, orders=orders, wanted=wanted, identity=identity, seed=seed)


def test_two_answers_have_two_orders_with_names():
    assert [shown(2, orders=orders) for orders in (None, "forward", "reversed", "both")] == [
        (FORWARD,), (FORWARD,), (REVERSED,), (FORWARD, REVERSED),
    ]  # fmt: skip
    assert (shown(2, 1), shown(2, 2), shown(2, "all")) == ((FORWARD,), (FORWARD, REVERSED), (FORWARD, REVERSED))
    assert [arrangements.name_of(order) for order in (FORWARD, REVERSED, (2, 3, 1))] == ["forward", "reversed", "2,3,1"]


@given(st.integers(3, 9), st.text(max_size=4), st.integers(0, 5))
def test_rows_are_those_of_a_latin_square_that_begins_with_the_records_order(answers, identity, seed):
    square = shown(answers, answers, identity=identity, seed=seed)
    assert square[0] == tuple(range(1, answers + 1))
    for line in (*square, *zip(*square, strict=True)):  # rows and columns
        assert sorted(line) == list(range(1, answers + 1))
    for count in range(1, answers):
        assert shown(answers, count, identity=identity, seed=seed) == square[:count]


def test_which_rows_come_first_depends_on_identity_and_seed_alone():
    drawn = {(identity, seed): shown(6, 3, identity=identity, seed=seed) for identity in "abcdef" for seed in range(3)}
    assert len(set(drawn.values())) > 6
    assert drawn["a", 0] == shown(6, 3, identity="a", seed=0)
    second = [shown(4, 2, identity=str(number))[1] for number in range(600)]
    for rotation in ((2, 3, 4, 1), (3, 4, 1, 2), (4, 1, 2, 3)):
        assert 150 < second.count(rotation) < 250  # 200 are expected, 11 is a standard deviation


@pytest.mark.parametrize("answers", [1, 2, 3, 4])
def test_all_are_every_order_once_the_records_own_first(answers):
    found = shown(answers, "all")
    assert found[0] == tuple(range(1, answers + 1))
    assert sorted(found) == sorted(itertools.permutations(range(1, answers + 1)))


@pytest.mark.parametrize(
    ("answers", "settings", "says"),
    [
        (3, {"wanted": 4}, "--arrangements=4 is more than the 3 answers"),
        (1, {"wanted": 2}, "--arrangements=2 is more than the 1 answers"),
        (5, {"wanted": "all"}, "use --arrangements=5"),
        (3, {"orders": "both"}, "--orders=both is of two answers, and this record has 3"),
        (1, {"orders": "forward"}, "--orders=forward is of two answers"),
        (2, {"orders": "both", "wanted": 2}, "give one of the two"),
    ],
)
def test_what_does_not_go_together_is_refused(answers, settings, says):
    with pytest.raises(InputError, match=says):
        shown(answers, **settings)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "", "１", "9" * 30])
def test_another_value_of_the_flag_is_refused(text):
    with pytest.raises(InputError, match="--arrangements="):
        arrangements.parse_wanted(text)
    assert [arrangements.parse_wanted(good) for good in (None, "all", "12")] == [None, "all", 12]


@given(st.integers(1, 6).flatmap(lambda count: st.permutations(range(1, count + 1))))
def test_what_was_shown_and_the_records_own_order_are_each_others_inverse(order):
    order = tuple(order)
    own = [f"answer {number}" for number in range(1, len(order) + 1)]
    seen = arrangements.as_shown(own, order)
    assert seen == tuple(f"answer {number}" for number in order)
    assert list(arrangements.in_own_order(seen, order)) == own


SCORES = st.integers(2, 5).flatmap(
    lambda count: st.lists(
        st.lists(st.sampled_from([1, 7.1, 8.2, 9.3, 10, 0.1]), min_size=count, max_size=count), min_size=1, max_size=6
    )
)


@given(SCORES, st.randoms(use_true_random=False))
def test_means_and_ranking_do_not_depend_on_the_order_of_arrangements_or_answers(scores, random):
    means = arrangements.mean_scores(scores)
    for number, mean in enumerate(means):
        exact = sum(map(Fraction, (row[number] for row in scores))) / len(scores)
        assert mean == pytest.approx(float(exact), rel=1e-15)
    order = tuple(random.sample(range(1, len(means) + 1), len(means)))
    rows = random.sample(scores, len(scores))
    other = arrangements.mean_scores([arrangements.as_shown(row, order) for row in rows])
    assert other == arrangements.as_shown(means, order)  # to the last bit
    groups = arrangements.ranking(means)
    assert sorted(itertools.chain(*groups)) == list(range(1, len(means) + 1))
    assert [{means[number - 1] for number in group} for group in groups] == [{s} for s in sorted(set(means), reverse=True)]
    renamed = [sorted(order.index(number) + 1 for number in group) for group in groups]
    assert arrangements.ranking(other) == renamed


@given(
    st.integers(2, 7).flatmap(
        lambda n: st.tuples(
            st.lists(st.integers(0, 6), min_size=n, max_size=n), st.lists(st.integers(-2, 2), min_size=n, max_size=n)
        )
    ),
    st.integers(0, 9),
)
def test_the_mean_over_a_latin_square_is_free_of_what_a_judge_prefers_by_position(drawn, seed):
    """A stub judge: each answer has a quality, and each position is worth something. Whole numbers, so nothing is rounded."""
    quality, preference = drawn
    count = len(quality)
    rows = shown(count, count, identity="x", seed=seed) if count > 2 else shown(2, 2)
    judged = []
    for row in rows:
        seen = [quality[number - 1] + preference[position] for position, number in enumerate(row)]
        judged.append(arrangements.in_own_order(seen, row))
    means = arrangements.mean_scores(judged)
    lift = sum(preference) / count
    assert means == pytest.approx([score + lift for score in quality])
    assert arrangements.ranking(means) == arrangements.ranking([score + lift for score in quality])
    effects = arrangements.position_effects(judged, rows)
    assert effects == pytest.approx([worth - lift for worth in preference])
