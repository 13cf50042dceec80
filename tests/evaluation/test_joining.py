"""Labels and judgments meet by identity; nothing is lost in silence."""

import json
import random
from pathlib import Path

import pytest

from judgelm_jax import verdicts
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation import metrics
from judgelm_jax.evaluation.joining import Judged, join_files, read_labels, read_predictions


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "winner"),
    [
        ({"winner": 2}, 2),
        ({"winner": 0, "text": "9 1"}, 0),
        ({"text": "9 1\nbecause"}, 1),
        ({"text": "7, 7"}, 0),
        ({"text": "error"}, None),
        ({"text": "error", "score": [-1, -1]}, None),
        ({"text": "9 1", "score": [-1, -1]}, None),
        ({"text": "In prose: the first.", "score": [9, 2.5]}, 1),
        ({"text": "1 9", "score": [{"logprob": -2.0}, {"logprob": -1.0}]}, 2),
        ({"text": "1 9", "score": [-0.7, -0.3]}, 2),
        ({"score": [3, 8.5]}, 2),
        ({"score": [-1, 4]}, None),
        ({"winner": None}, None),
    ],
)
def test_the_forms_of_a_label(tmp_path: Path, row: dict, winner: int | None) -> None:
    path = write(tmp_path / "labels.jsonl", {"question_id": 5, **row})
    assert read_labels(path, "tolerant") == {"5": winner}


@pytest.mark.parametrize(
    "row", [{}, {"winner": 3}, {"winner": "1"}, {"winner": True}, {"score": [11, 2]}, {"score": 3}, {"text": 3}]
)
def test_a_row_without_a_usable_label_is_named(tmp_path: Path, row: dict) -> None:
    path = write(tmp_path / "labels.jsonl", {"question_id": 4, "winner": 1}, {"question_id": 5, **row})
    with pytest.raises(InputError) as caught:
        read_labels(path, "tolerant")
    assert str(caught.value).startswith(f"{path}:2: ")


def test_upstream_labels_fail_where_the_published_parser_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.jsonl", {"question_id": 1, "text": "8, 9"}, {"question_id": 2, "text": "8 9"})
    assert read_labels(path, "upstream") == {"1": None, "2": 2}
    assert read_labels(path, "tolerant") == {"1": 2, "2": 2}


def test_a_row_with_only_pred_text_is_taken_in_the_order_of_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"question_id": 1, "pred_text": "9 2"}, {"question_id": 2, "pred_text": "?"})
    forward, back = read_predictions(path, "tolerant"), read_predictions(path, "tolerant", "reversed")
    assert (forward["1"].forward, forward["1"].reversed) == (Judged("ok", 1), None)
    assert (back["1"].forward, back["1"].reversed) == (None, Judged("ok", 2))
    assert forward["2"].headline == back["2"].headline == Judged("unparsed", None)


def judgments(path: Path, order: str, texts: list[tuple[str, str]]) -> Path:
    """A judgment file as `judge` writes it, of (forward text, reversed text) of each record."""
    rows = []
    for number, (one, other) in enumerate(texts):
        record = {"question_id": number, "question_body": "q", "answer1_body": "a", "answer2_body": "b"}
        forward = verdicts.verdict_from_text(one, "forward", 2, "stop", (0, 0))
        back = verdicts.verdict_from_text(other, "reversed", 2, "stop", (0, 0))
        verdict = {"forward": forward, "reversed": back, "both": (forward, back)}[order]
        rows.append(verdicts.judgment(record, verdict, pred_id="p", pred_model_id="m", tstamp=0.0))
    return write(path, *rows)


TEXTS = [("9 2", "2 9"), ("9 2", "9 8"), ("3 8", "8 4"), ("5 5", "no"), ("no", "no"), ("8, 2", "3 3"), ("4 9", "9 7")]


@pytest.mark.parametrize("parser", ["tolerant", "upstream"])
def test_merged_rows_and_two_files_give_the_same_orders(tmp_path: Path, parser: str) -> None:
    labels = write(tmp_path / "l.jsonl", *({"question_id": number, "winner": number % 3} for number in range(len(TEXTS))))
    merged = join_files(labels, judgments(tmp_path / "both.jsonl", "both", TEXTS), None, parser)
    forward, back = (judgments(tmp_path / f"{order}.jsonl", order, TEXTS) for order in ("forward", "reversed"))
    apart = join_files(labels, forward, back, parser)
    assert [(row.forward, row.reversed) for row in merged.predictions] == [
        (row.forward, row.reversed) for row in apart.predictions
    ]
    bare = [
        write(path.with_suffix(".bare"), *({"question_id": row["question_id"], "pred_text": row["pred_text"]} for row in rows))
        for path in (forward, back)
        if (rows := [json.loads(line) for line in path.read_text().splitlines()])
    ]
    assert join_files(labels, bare[0], bare[1], parser).predictions == apart.predictions


def test_the_headline_of_merged_rows_is_the_merged_verdict_but_upstream_the_forward_one(tmp_path: Path) -> None:
    path = judgments(tmp_path / "both.jsonl", "both", TEXTS)
    merged = [row.headline.winner for row in read_predictions(path, "tolerant").values()]
    assert merged == [1, 1, 2, None, None, 1, 2]
    assert [row.headline.winner for row in read_predictions(path, "upstream").values()] == [1, 1, 2, 0, None, None, 2]


def test_files_join_by_id_whatever_their_order(shared: Path, tmp_path: Path) -> None:
    golden = shared / "contract/metrics_golden"
    lines = (golden / "forward.jsonl").read_text().splitlines()
    random.Random(0).shuffle(lines)
    shuffled = tmp_path / "shuffled.jsonl"
    shuffled.write_text("\n".join(lines))
    plain, mixed = (
        metrics.summarize(
            join_files(golden / "gt.jsonl", path, golden / "reversed.jsonl", "tolerant"), parser="tolerant", unparsed="wrong"
        )
        for path in (golden / "forward.jsonl", shuffled)
    )
    assert plain == mixed


def test_what_does_not_meet_is_counted(tmp_path: Path) -> None:
    labels = write(
        tmp_path / "l.jsonl",
        {"question_id": 1, "winner": 1},
        {"question_id": "2", "winner": 1},
        {"pair_id": "x", "question_id": 1, "winner": 2},
        {"question_id": 4, "text": "error"},
    )
    predictions = write(
        tmp_path / "p.jsonl",
        {"question_id": 2, "pred_text": "9 1"},
        {"question_id": 9, "pair_id": "x", "pred_text": "9 1"},
        {"question_id": 4, "pred_text": "9 1"},
        {"question_id": 77, "pred_text": "9 1"},
    )
    joined = join_files(labels, predictions, None, "tolerant")
    assert (joined.labels, joined.labels_dropped, joined.missing, joined.unlabelled) == ([1, 2], 1, 1, 1)
    reversed_rows = write(tmp_path / "r.jsonl", *({"question_id": number, "pred_text": "9 1"} for number in (2, 77, 78)))
    joined = join_files(labels, predictions, reversed_rows, "tolerant")
    assert (joined.labels, joined.labels_dropped, joined.missing, joined.unlabelled) == ([1], 1, 2, 2)


def test_files_without_a_common_id_are_refused(tmp_path: Path) -> None:
    labels = write(tmp_path / "l.jsonl", {"question_id": 1, "winner": 1})
    with pytest.raises(InputError, match="no row has an id"):
        join_files(labels, write(tmp_path / "p.jsonl", {"question_id": 2, "pred_text": "1 2"}), None, "tolerant")


@pytest.mark.parametrize("wrong", ["labels", "predictions", "reversed"])
def test_a_double_id_names_both_lines(tmp_path: Path, wrong: str) -> None:
    row = {"question_id": 1, "winner": 1, "pred_text": "2 1"}
    paths = {
        name: write(tmp_path / name, row, *([row] if name == wrong else [])) for name in ("labels", "predictions", "reversed")
    }
    with pytest.raises(InputError, match=rf"{wrong}:2: .*line 1"):
        join_files(paths["labels"], paths["predictions"], paths["reversed"], "tolerant")


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"pred_text": None},
        {"pred_text": "1 2", "status": "fine"},
        {"pred_text": "1 2", "status": "ok", "winner": 3},
        {"pred_text": "1 2", "order": "up"},
        {"pred_text": "1 2", "order": "both"},
    ],
)
def test_a_broken_prediction_is_named(tmp_path: Path, row: dict) -> None:
    path = write(tmp_path / "p.jsonl", {"question_id": 1, **row})
    with pytest.raises(InputError) as caught:
        read_predictions(path, "tolerant")
    assert str(caught.value).startswith(f"{path}:1: ")


@pytest.mark.parametrize(("first", "second"), [("reversed", "reversed"), ("forward", "forward"), ("both", "reversed")])
def test_orders_that_do_not_go_together_are_refused(tmp_path: Path, first: str, second: str) -> None:
    labels = write(tmp_path / "l.jsonl", {"question_id": 0, "winner": 1})
    one, other = (judgments(tmp_path / f"{place}-{order}", order, TEXTS) for place, order in enumerate((first, second)))
    with pytest.raises(InputError, match="order is not"):
        join_files(labels, one, other, "tolerant")


def test_a_row_of_an_overflow_keeps_its_status(tmp_path: Path) -> None:
    row = verdicts.judgment(
        {"question_id": 1}, verdicts.overflow_verdict("forward", 2), pred_id="p", pred_model_id="m", tstamp=0
    )
    path = write(tmp_path / "p.jsonl", row)
    assert read_predictions(path, "tolerant")["1"].headline == Judged("overflow", None)
