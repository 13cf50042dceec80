"""Labels and judgments meet by identity; nothing is lost in silence."""

import json
import random
from pathlib import Path

import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation import metrics
from judgelm_jax.evaluation.joining import Fields, Judged, join, read_labels, read_predictions
from judgelm_jax.prompts.arrangements import FORWARD, REVERSED
from judgelm_jax.verdicts import merging, verdicts


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def winners(path: Path, parser: str) -> dict[str, int | None]:
    return {key: label.winner for key, (label, _) in read_labels(path, parser).items()}


@pytest.mark.parametrize(
    ("row", "winner"),
    [
        ({"winner": 2}, 2),
        ({"winner": 2.0}, 2),
        ({"winner": -0.0}, 0),
        ({"winner": None, "text": None, "score": [1.0, 7]}, 2),
        ({"text": None, "score": [-1.0, -1.0]}, None),
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
    assert winners(path, "tolerant") == {"5": winner}


@pytest.mark.parametrize(
    "row",
    [
        {"winner": 3},
        {"winner": -1},
        {"winner": 1.5},
        {"score": [11, 2]},
        {"score": [50.0, 2.0]},
        {"score": [3, -2]},
        {"text": "50 2\nbecause", "score": [50.0, 2.0]},
        {"text": "50 2"},
        {"text": "In prose", "score": [50, 2]},
    ],
)
def test_a_label_out_of_range_is_dropped_and_counted_whatever_its_form(tmp_path: Path, row: dict) -> None:
    labels = write(tmp_path / "labels.jsonl", {"question_id": 1, **row}, {"question_id": 2, "score": [1, 7]})
    predictions = write(tmp_path / "p.jsonl", *({"question_id": number, "pred_text": "1 7"} for number in (1, 2)))
    joined = join(labels, predictions, None, "tolerant")
    assert (joined.labels, joined.labels_dropped, joined.labels_out_of_range, joined.unlabelled) == ([2], 1, 1, 0)


@pytest.mark.parametrize("row", [{}, {"winner": "1"}, {"winner": True}, {"score": 3}, {"score": ["1", "2"]}, {"text": 3}])
def test_a_row_without_a_usable_label_is_named(tmp_path: Path, row: dict) -> None:
    path = write(tmp_path / "labels.jsonl", {"question_id": 4, "winner": 1}, {"question_id": 5, **row})
    with pytest.raises(InputError) as caught:
        read_labels(path, "tolerant")
    assert str(caught.value).startswith(f"{path}:2: ")


def test_a_file_without_labels_is_refused(tmp_path: Path) -> None:
    empty, predictions = write(tmp_path / "labels.jsonl"), write(tmp_path / "p.jsonl", {"question_id": 1, "pred_text": "1 7"})
    with pytest.raises(InputError, match=r"labels.jsonl: is empty; give labels"):
        join(empty, predictions, None, "tolerant")


@pytest.mark.parametrize("scores", ["x", [1], [1, "2"], {"1": 2}])
def test_scores_that_are_none_are_named(tmp_path: Path, scores: object) -> None:
    path = write(tmp_path / "p.jsonl", {"question_id": 1, "pred_text": "1 7", "scores": scores})
    with pytest.raises(InputError, match=r"p.jsonl:1: scores is no list of two numbers"):
        read_predictions(path, "tolerant")


def test_upstream_labels_fail_where_the_published_parser_fails(tmp_path: Path) -> None:
    path = write(tmp_path / "labels.jsonl", {"question_id": 1, "text": "8, 9"}, {"question_id": 2, "text": "8 9"})
    assert winners(path, "upstream") == {"1": None, "2": 2}
    assert winners(path, "tolerant") == {"1": 2, "2": 2}


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
        forward = verdicts.verdict_from_text(one, FORWARD, "stop", (0, 0))
        back = verdicts.verdict_from_text(other, REVERSED, "stop", (0, 0))
        verdict = {"forward": forward, "reversed": back, "both": (forward, back)}[order]
        rows.append(merging.judgment(record, verdict, pred_id="p", pred_model_id="m", tstamp=0.0))
    return write(path, *rows)


TEXTS = [("9 2", "2 9"), ("9 2", "9 8"), ("3 8", "8 4"), ("5 5", "no"), ("no", "no"), ("8, 2", "3 3"), ("4 9", "9 7")]


@pytest.mark.parametrize("parser", ["tolerant", "upstream"])
def test_merged_rows_and_two_files_give_the_same_orders(tmp_path: Path, parser: str) -> None:
    labels = write(tmp_path / "l.jsonl", *({"question_id": number, "winner": number % 3} for number in range(len(TEXTS))))
    merged = join(labels, judgments(tmp_path / "both.jsonl", "both", TEXTS), None, parser)
    forward, back = (judgments(tmp_path / f"{order}.jsonl", order, TEXTS) for order in ("forward", "reversed"))
    separate = join(labels, forward, back, parser)
    assert [(row.forward, row.reversed) for row in merged.predictions] == [
        (row.forward, row.reversed) for row in separate.predictions
    ]
    bare = [
        write(path.with_suffix(".bare"), *({"question_id": row["question_id"], "pred_text": row["pred_text"]} for row in rows))
        for path in (forward, back)
        if (rows := [json.loads(line) for line in path.read_text().splitlines()])
    ]
    assert [(row.headline, row.forward, row.reversed) for row in join(labels, bare[0], bare[1], parser).predictions] == [
        (row.headline, row.forward, row.reversed) for row in separate.predictions
    ]


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
            join(golden / "gt.jsonl", path, golden / "reversed.jsonl", "tolerant"), parser="tolerant", unparsed="wrong"
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
    joined = join(labels, predictions, None, "tolerant")
    assert (joined.labels, joined.labels_dropped, joined.missing, joined.unlabelled) == ([1, 2], 1, 1, 1)
    reversed_rows = write(tmp_path / "r.jsonl", *({"question_id": number, "pred_text": "9 1"} for number in (2, 77, 78)))
    joined = join(labels, predictions, reversed_rows, "tolerant")
    assert (joined.labels, joined.labels_dropped, joined.missing, joined.unlabelled) == ([1], 1, 2, 2)


def floats(value: object) -> object:
    """Every whole number as a float, as pandas writes a column that holds a null."""
    if isinstance(value, dict):
        return {name: floats(item) for name, item in value.items()}
    if isinstance(value, list):
        return [floats(item) for item in value]
    return float(value) if type(value) is int else value


@pytest.mark.parametrize("which", ["labels", "predictions", "both"])
@pytest.mark.parametrize("order", ["forward", "both"])
def test_files_written_by_pandas_mean_the_same(tmp_path: Path, which: str, order: str) -> None:
    rows = [{"question_id": number, "winner": number % 3, "annotators": [number % 3, 1, None]} for number in range(len(TEXTS))]
    labels, predictions = write(tmp_path / "l.jsonl", *rows), judgments(tmp_path / "p.jsonl", order, TEXTS)
    as_floats = {}
    for name, path in (("labels", labels), ("predictions", predictions)):
        made = [floats(json.loads(line)) for line in path.read_text().splitlines()]
        as_floats[name] = write(tmp_path / f"{name}-floats.jsonl", *made) if which in (name, "both") else path
    expected = join(labels, predictions, None, "tolerant")
    assert join(as_floats["labels"], as_floats["predictions"], None, "tolerant") == expected
    assert expected.people[1] == (1, 1, None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1.0, "1", True),
        (1, "1", True),
        (2.5, "2.5", True),
        (10**17, 1e17, True),
        (0, -0.0, True),
        (1, "1.0", False),
        (1, "01", False),
    ],
)
def test_one_id_in_several_forms(tmp_path: Path, one: object, other: object, same: bool) -> None:
    """1.0 is the JSON number 1; a string is an id as it is written, so "1.0" stays another."""
    for field in ("question_id", "pair_id"):
        fields = ({"question_id": "q", field: value} for value in (one, other))
        labels = write(tmp_path / f"l-{field}.jsonl", {**next(fields), "winner": 1})
        predictions = write(tmp_path / f"p-{field}.jsonl", {**next(fields), "pred_text": "9 1"})
        if same:
            assert join(labels, predictions, None, "tolerant").labels == [1]
        else:
            with pytest.raises(InputError, match="no row has an id"):
                join(labels, predictions, None, "tolerant")


def test_ids_that_do_not_meet_are_shown_and_the_rule_is_said(tmp_path: Path) -> None:
    labels = write(tmp_path / "l.jsonl", {"question_id": 81, "winner": 1})
    predictions = write(tmp_path / "p.jsonl", {"question_id": 81, "pair_id": "81/1-2", "pred_text": "9 1"})
    with pytest.raises(InputError, match=r"first ids are '81/1-2' and '81'\); the id of a row is its pair_id where it has one"):
        join(labels, predictions, None, "tolerant")


def test_a_cluster_is_found_in_the_judgments_or_else_in_the_labels_under_any_field(tmp_path: Path) -> None:
    labels = write(
        tmp_path / "l.jsonl",
        {"pair_id": 1, "question_id": 7.0, "winner": 1, "from": {"topic": "sea"}},
        {"pair_id": 2, "question_id": 7, "winner": 1},
        {"pair_id": 3, "question_id": None, "winner": 1},
    )
    bare = write(tmp_path / "p.jsonl", *({"pair_id": number, "pred_text": "9 1"} for number in (1, 2, 3)))
    assert join(labels, bare, None, "tolerant").clusters() == ["7", "7", ("without", 2)]
    by_topic = join(labels, bare, None, "tolerant", fields=Fields("from.topic", "from.topic"))
    assert by_topic.clusters() == ["sea", ("without", 1), ("without", 2)]
    assert [row.facts.group for row in by_topic.predictions] == ["sea", None, None]
    full = write(tmp_path / "f.jsonl", *({"pair_id": n, "question_id": n % 2, "pred_text": "9 1"} for n in (1, 2, 3)))
    assert join(labels, full, None, "tolerant").clusters() == ["1", "0", "1"]


DISTRIBUTION = {"pred_text": "8 7", "status": "ok", "scores": [8, 7], "winner": 0, "expected_scores": [4.0, 4.5]}


@pytest.mark.parametrize(("decide", "winner"), [("winner", 0), ("mode", 1), ("mean", 2)])
def test_a_distribution_names_its_winner_as_asked(tmp_path: Path, decide: str, winner: int) -> None:
    merged = {**DISTRIBUTION, "order": "both", "forward": DISTRIBUTION, "reversed": DISTRIBUTION}
    path = write(tmp_path / "p.jsonl", {"question_id": 1, **merged})
    row = read_predictions(path, "tolerant", decide=decide)["1"]
    assert [judged and judged.winner for judged in (row.headline, row.forward, row.reversed)] == [winner] * 3
    plain = write(tmp_path / "plain.jsonl", {"question_id": 1, "pred_text": "8 7", "status": "ok", "winner": 1})
    if decide != "winner":
        with pytest.raises(InputError, match="--mode=distribution"):
            read_predictions(plain, "tolerant", decide=decide)


def test_files_without_a_common_id_are_refused(tmp_path: Path) -> None:
    labels = write(tmp_path / "l.jsonl", {"question_id": 1, "winner": 1})
    with pytest.raises(InputError, match="no row has an id"):
        join(labels, write(tmp_path / "p.jsonl", {"question_id": 2, "pred_text": "1 2"}), None, "tolerant")


@pytest.mark.parametrize("wrong", ["labels", "predictions", "reversed"])
def test_a_double_id_names_both_lines(tmp_path: Path, wrong: str) -> None:
    row = {"question_id": 1, "winner": 1, "pred_text": "2 1"}
    paths = {
        name: write(tmp_path / name, row, *([row] if name == wrong else [])) for name in ("labels", "predictions", "reversed")
    }
    with pytest.raises(InputError, match=rf"{wrong}:2: .*line 1"):
        join(paths["labels"], paths["predictions"], paths["reversed"], "tolerant")


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"pred_text": None},
        {"pred_text": "1 2", "status": "fine"},
        {"pred_text": "1 2", "status": "ok", "winner": 3},
        {"pred_text": "1 2", "order": "up"},
        {"pred_text": "1 2", "order": "both"},
        {"pred_text": "1 2", "status": "ok", "winner": "1"},
        {"pred_text": "1 2", "status": "ok", "winner": True},
        {"pred_text": "1 2", "status": "ok", "winner": 1.5},
        {"pred_text": "1 2", "probabilities": {"1": 0.5, "0": 0.4, "2": 0.2}},
        {"pred_text": "1 2", "probabilities": {"1": 0.5}},
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
        join(labels, one, other, "tolerant")


def test_a_row_of_an_overflow_keeps_its_status(tmp_path: Path) -> None:
    row = merging.judgment({"question_id": 1}, verdicts.overflow_verdict(FORWARD), pred_id="p", pred_model_id="m", tstamp=0)
    path = write(tmp_path / "p.jsonl", row)
    assert read_predictions(path, "tolerant")["1"].headline == Judged("overflow", None)


@pytest.mark.parametrize(("text", "order"), [("7", (1,)), ("7 8 9", (2, 3, 1))])
def test_judgments_of_another_number_of_answers_are_sent_where_they_are_used(
    tmp_path: Path, text: str, order: tuple[int, ...]
) -> None:
    verdict = verdicts.verdict_from_text(text, order, "stop", (0,) * len(order))
    row = merging.judgment({"question_id": 1}, verdict, pred_id="p", pred_model_id="m", tstamp=0)
    path = write(tmp_path / "p.jsonl", row)
    with pytest.raises(InputError, match=r"p\.jsonl:1: .*judgelm-evaluate is of pairs; judgelm-rank ranks"):
        read_predictions(path, "tolerant")
