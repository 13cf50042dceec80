"""Metrics against the published numbers, scikit-learn and arithmetic by hand."""

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from judgelm_jax.evaluation import metrics, outcomes, position_bias
from judgelm_jax.evaluation.joining import Joined, Judged, Prediction, join
from judgelm_jax.evaluation.plain_text import metrics_table

WINNERS = st.sampled_from([1, 2, 0])
VERDICTS = st.sampled_from([1, 2, 0, None])
PUBLISHED = {
    "accuracy": "agreement",
    "precision": "precision",
    "recall": "recall",
    "f1": "f1",
    "consistency": "consistency",
    "perfer_before_rate": "bias_first",
    "perfer_after_rate": "bias_second",
    "delta_bias": "delta_bias",
    "total_bias": "total_bias",
    "total_num": "total",
}


def judged(winner: int | None) -> Judged:
    return Judged("unparsed" if winner is None else "ok", winner)


def joined(rows: list[tuple[int, int | None, int | None]]) -> Joined:
    """Rows of (label, forward winner, reversed winner), winners in the record's own order."""
    predictions = [Prediction(1, judged(one), judged(one), judged(other)) for _, one, other in rows]
    return Joined([label for label, _, _ in rows], predictions, 0, 0, 0)


def summarize(rows: list[tuple[int, int | None, int | None]], unparsed: str) -> dict:
    return metrics.summarize(joined(rows), parser="tolerant", unparsed=unparsed)


def test_the_upstream_parser_gives_the_published_numbers_to_12_digits(shared: Path) -> None:
    golden = shared / "contract/metrics_golden"
    files = join(golden / "gt.jsonl", golden / "forward.jsonl", golden / "reversed.jsonl", "upstream")
    summary = metrics.summarize(files, parser="upstream", unparsed="wrong")
    expected = json.loads((golden / "expected_upstream.json").read_text())
    assert set(expected) == set(PUBLISHED)
    for name, ours in PUBLISHED.items():
        assert summary[ours] == pytest.approx(expected[name], abs=1e-12), name
    assert summary["labels_dropped"] == 400 - expected["total_num"]


@given(st.lists(st.tuples(WINNERS, VERDICTS), min_size=1, max_size=25))
def test_macro_scores_are_those_of_scikit_learn(rows: list[tuple[int, int | None]]) -> None:
    labels, winners = [label for label, _ in rows], [winner for _, winner in rows]
    matrix = metrics.confusion(labels, [judged(winner) for winner in winners], "wrong")
    plain = [-1 if winner is None else winner for winner in winners]
    present = sorted({*labels, *plain} - {-1})
    expected = precision_recall_fscore_support(labels, plain, labels=present, average="macro", zero_division=0)[:3]
    ours = [statistic(matrix[None])[0] for statistic in (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1)]
    assert ours == pytest.approx(expected, abs=1e-12)
    columns = [0 if winner == 1 else 1 if winner == 2 else 2 if winner == 0 else 3 for winner in winners]
    known = confusion_matrix([(2, 0, 1)[label] for label in labels], columns, labels=range(4))
    assert matrix.tolist() == known[:3].tolist()
    assert np.trace(matrix) / len(rows) == pytest.approx(accuracy_score(labels, plain))
    assert np.trace(matrix) == sum(label == winner for label, winner in rows)
    assert matrix.sum() == len(rows)


ROWS: list[tuple[int, int | None, int | None]] = [(1, 1, 1), (1, 1, 2), (2, 1, 2), (0, 0, 1), (2, None, 2), (0, None, None)]


def test_a_verdict_that_is_missing_counts_as_wrong_by_default_rules() -> None:
    summary = summarize(ROWS, "wrong")
    assert (summary["agreement"], summary["total"], summary["unparsed"]) == (3 / 6, 6, 2)
    assert (summary["consistency"], summary["pairs"]) == (1 / 6, 6)
    # (1, 2) and (1, 2) favour the first place; (0, 1): the record's first answer fares better shown second.
    assert (summary["bias_first"], summary["bias_second"]) == (2 / 6, 1 / 6)
    assert (summary["delta_bias"], summary["total_bias"]) == (pytest.approx(1 / 6), 3 / 6)
    assert (summary["agreement_forward"], summary["agreement_reversed"]) == (3 / 6, 3 / 6)
    assert summary["unparsed_reversed"] == 1


def test_a_verdict_that_is_missing_can_be_left_out() -> None:
    summary = summarize(ROWS, "exclude")
    assert (summary["agreement"], summary["total"], summary["unparsed"]) == (3 / 4, 4, 2)
    assert (summary["consistency"], summary["pairs"]) == (1 / 4, 4)


def test_a_verdict_that_is_missing_can_count_as_a_tie() -> None:
    summary = summarize(ROWS, "tie")
    assert (summary["agreement"], summary["total"], summary["unparsed"]) == (4 / 6, 6, 2)
    assert summary["consistency"] == 2 / 6
    assert summary["bias_first"] == 3 / 6  # (None, 2): a tie shown first, a loss shown second


@given(st.lists(st.tuples(WINNERS, VERDICTS, VERDICTS), min_size=1, max_size=20), st.sampled_from(outcomes.UNPARSED_POLICIES))
def test_every_fraction_lies_in_its_interval_and_every_record_is_counted(rows: list, policy: str) -> None:
    summary = summarize(rows, policy)
    assert sum(summary[status] for status in ("ok", "truncated", "unparsed", "overflow")) == len(rows)
    for name in ("agreement", "consistency", "bias_first", "bias_second", "total_bias", "delta_bias"):
        value, interval = summary[name], summary[f"{name}_interval"]
        assert (value is None) == (interval is None)
        if value is not None:
            assert interval[1] - interval[0] > 1e-3
            assert 0 <= interval[0] <= value + 1e-12
            assert value - 1e-12 <= interval[1] <= 1
    for name in ("precision", "recall", "f1"):
        assert (summary[name] is None) == (summary["total"] == 0)
    json.dumps(summary, allow_nan=False)
    assert f"total {summary['total']} " in metrics_table(summary)


@given(st.lists(st.tuples(VERDICTS, VERDICTS), min_size=1, max_size=20))
def test_exchanging_the_orders_exchanges_the_biases(pairs: list) -> None:
    forward, back = [judged(one) for one, _ in pairs], [judged(other) for _, other in pairs]
    counts, exchanged = position_bias.count_orders(forward, back, "wrong"), position_bias.count_orders(back, forward, "wrong")
    assert (counts.same, counts.first, counts.second) == (exchanged.same, exchanged.second, exchanged.first)
    assert counts.same + counts.first + counts.second + counts.undecided == len(pairs)


@given(st.lists(st.tuples(WINNERS, WINNERS), min_size=1, max_size=30))
def test_consistency_and_biases_are_those_of_a_table_of_both_orders(pairs: list) -> None:
    """By pandas' table of the winner to the judge's eye in both orders: 1 the answer shown first, -1 the second, 0 a tie."""
    forward = [{1: 1, 2: -1, 0: 0}[one] for one, _ in pairs]
    back = [{1: -1, 2: 1, 0: 0}[other] for _, other in pairs]
    table = pandas.crosstab(pandas.Series(forward, name="f"), pandas.Series(back, name="b"), normalize=True)
    cells = {(one, other): table.loc[one, other] for one in table.index for other in table.columns}
    summary = summarize([(1, *pair) for pair in pairs], "wrong")
    assert summary["consistency"] == pytest.approx(sum(share for (one, other), share in cells.items() if one == -other))
    assert summary["bias_first"] == pytest.approx(sum(share for (one, other), share in cells.items() if one + other > 0))
    assert summary["bias_second"] == pytest.approx(sum(share for (one, other), share in cells.items() if one + other < 0))
    assert summary["delta_bias"] == pytest.approx(abs(summary["bias_first"] - summary["bias_second"]))
    assert summary["total_bias"] == pytest.approx(1 - summary["consistency"])


def test_a_judge_that_always_prefers_the_first_place_has_bias_first_only() -> None:
    summary = summarize([(1, 1, 2)] * 10, "wrong")
    assert (summary["bias_first"], summary["bias_second"], summary["consistency"]) == (1.0, 0.0, 0.0)


def test_one_order_alone_has_no_consistency() -> None:
    files = Joined([1], [Prediction(1, judged(1), judged(1), None)], 0, 0, 0)
    summary = metrics.summarize(files, parser="tolerant", unparsed="wrong")
    assert summary["agreement"] == 1
    assert "consistency" not in summary
    assert "agreement_reversed" not in summary


def test_nothing_to_count_gives_no_numbers_and_no_crash() -> None:
    summary = metrics.summarize(Joined([], [], 3, 0, 0), parser="tolerant", unparsed="wrong")
    assert (summary["agreement"], summary["f1"], summary["agreement_interval"], summary["total"]) == (None, None, None, 0)
    assert "labels_dropped 3" in metrics_table(summary)


def test_a_pair_that_did_not_fit_the_context_is_not_inconsistent() -> None:
    lost = Judged("overflow", None)
    forward, back = [judged(1), lost, judged(None)], [judged(1), lost, judged(None)]
    counts = position_bias.count_orders(forward, back, "wrong")
    assert (counts.same, counts.first, counts.second, counts.undecided) == (1, 0, 0, 1)
    assert position_bias.count_orders(forward, back, "tie").same == 3  # as the published code counts


def test_without_labels_there_is_consistency_but_no_agreement() -> None:
    rows = joined([(1, 1, 1), (1, 1, 2), (1, 2, 2)]).predictions
    summary = metrics.summarize(Joined(None, rows, 0, 0, 0), parser="tolerant", unparsed="wrong")
    assert summary["consistency"] == 2 / 3
    assert (summary["total"], summary["clusters"]) == (3, 3)
    assert "agreement" not in summary
    assert "confusion" not in summary


def test_the_confusion_matrix_names_labels_and_verdicts() -> None:
    summary = summarize([(1, 1, 1), (1, 2, 2), (0, None, None)], "wrong")
    assert summary["confusion"]["1"] == {"1": 1, "2": 1, "0": 0, "none": 0}
    assert summary["confusion"]["0"] == {"1": 0, "2": 0, "0": 0, "none": 1}
