"""A report says what the summary says, escapes what strangers wrote, and appears whole or not at all."""

import base64
import dataclasses
import errno
import gzip
import hashlib
import html.parser
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from judgelm_jax.commands import evaluate, rank
from judgelm_jax.commands.command_line import run
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import Fields, Joined, join
from judgelm_jax.evaluation.ranking.comparisons import read_comparisons
from judgelm_jax.evaluation.ranking.ranking import rank as rank_models
from judgelm_jax.evaluation.report import figures, rows
from judgelm_jax.evaluation.report.content import judge_report
from judgelm_jax.evaluation.report.folder import check_folder, write_report
from judgelm_jax.evaluation.report.markdown import escaped, markdown
from judgelm_jax.evaluation.report.page import page
from judgelm_jax.evaluation.summary import full_summary
from judgelm_jax.records.json_lines import read_jsonl


@pytest.fixture(scope="module")
def content(files, joined):
    judgments = [row for _, row in read_jsonl(files[0])]
    summary = full_summary(joined, Fields(), parser="tolerant", unparsed="wrong")
    return judge_report("A <b>title</b>", judgments, joined, summary, rank_models(read_comparisons([files[0]]).rows))


@pytest.fixture(scope="module")
def text(content):
    return page(content)


class Elements(html.parser.HTMLParser):
    """The elements of a page, and the texts inside scripts."""

    def __init__(self, source):
        super().__init__()
        self.found, self.scripts, self._inside = [], [], None
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._inside = tag

    def handle_data(self, data):
        if self._inside == "script" and data.strip():
            self.scripts.append(data)


def test_every_element_is_our_own(text):
    elements = Elements(text)
    assert sum(tag == "script" for tag, _ in elements.found) == 2  # the data and the code
    assert not [tag for tag, attributes in elements.found for name in attributes if name.startswith("on") or name == "style"]
    images = [attributes["src"] for tag, attributes in elements.found if tag == "img"]
    assert images
    assert all(source.startswith("data:image/svg+xml;base64,") for source in images)
    assert not re.search(r"(?:src|href|srcset)=\"(?:https?:)?//", text)


def test_the_policy_names_the_hashes_of_the_script_and_the_style(text):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    assert policy.startswith("default-src 'none';")
    for element in ("style", "script"):
        source = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL).group(1)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy


def test_the_records_lie_in_the_page_as_they_were(files, text):
    packed = re.search(r'id="data">([^<]*)<', text).group(1)
    unpacked = json.loads(gzip.decompress(base64.b64decode(packed)))
    judgments = [row for _, row in read_jsonl(files[0])]
    assert len(unpacked["rows"]) == len(judgments)
    for row, judgment in zip(unpacked["rows"], judgments, strict=True):
        assert row["question"] == judgment["question_body"]
        assert row["answers"] == [judgment["answer1_body"], judgment["answer2_body"]]
        assert row["winner"] == judgment["winner"]
        assert ("inconsistent" in row["marks"]) == (not judgment["consistent"])
        assert sum(row["probabilities"]) == pytest.approx(1)


def test_the_figures_are_drawings_and_pictures(content):
    names = {figure.name for figure in content.figures}
    assert names == {"ranking", "win-rates", "confusion", "consistency", "scores", "reliability"}
    for figure in content.figures:
        for drawing in (figure.light, figure.dark):
            assert ElementTree.fromstring(drawing).tag.endswith("svg")
        assert figure.png.startswith(b"\x89PNG")


@pytest.mark.parametrize("scores", [[1e20, 3.0], [-5.0, 3.0], [11.0, 12.0]])
def test_scores_that_no_judge_gives_are_not_drawn(scores):
    row = rows.Row("1", "q", ["a", "b"], [None, None], None, None, 1, scores, None, {}, "", [], {})
    shown = dataclasses.replace(
        row, orders={name: {"winner": 1, "scores": scores, "text": ""} for name in ("forward", "reversed")}
    )
    assert figures.score_figure([shown] * 20) is None


def test_groups_are_counted_by_hand(files, content):
    table = next(table for table in content.tables if table.title == "By category")
    judgments = [row for _, row in read_jsonl(files[0])]
    labels = {row["pair_id"]: row["winner"] for _, row in read_jsonl(files[1])}
    for value, count, agreement, _, consistency, _ in table.rows:
        members = [row for row in judgments if row["category"] == value]
        assert int(count) == len(members) > 0
        agreeing = sum(row["winner"] == labels[row["pair_id"]] for row in members)
        assert float(agreement) == pytest.approx(agreeing / len(members), abs=6e-4)
        assert float(consistency) == pytest.approx(sum(row["consistent"] for row in members) / len(members), abs=6e-4)


def test_markdown_keeps_names_out_of_its_own_signs(content):
    source = markdown(content)
    assert "<script" not in source
    lines = re.search(r"## Ranking\n\n(.*?)\n\n", source, re.DOTALL).group(1).splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert escaped("a|b\n# [x](y) <i> *s* @team") == r"a\|b \# \[x\]\(y\) &lt;i&gt; \*s\* \@team"


def test_long_texts_are_cut_with_a_notice():
    assert rows.cut("x" * rows.LONGEST_TEXT) == "x" * rows.LONGEST_TEXT
    assert rows.cut("x" * (rows.LONGEST_TEXT + 1234)).endswith("[1,234 more characters are left out of the report]")


_NUMBERS = st.integers(-9, 10**20) | st.floats(allow_nan=False, allow_infinity=False)
_KEYS = st.sampled_from(["text", "1", "0", "winner", "scores"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(_KEYS, values),
    max_leaves=6,
)


@given(st.data())
def test_a_judgment_with_anything_in_its_fields_is_shown(data):
    """What `evaluate` does not read may be anything, and nothing of it ends a report."""
    record = {
        "question_id": 1, "question_body": "q", "answer1_body": "a", "answer2_body": "b", "scores": [8, 4], "order": "both",
        "winner": 1, "status": "ok", "pred_text": "8 4", "probabilities": {"1": 0.8, "0": 0.1, "2": 0.1}, "reference": "r",
        "forward": {"winner": 1, "scores": [8, 4], "pred_text": "8 4"}, "arrangements": [], "expected_scores": [7.5, 4],
    }  # fmt: skip
    for field in data.draw(st.sets(st.sampled_from([name for name in record if name != "question_id"]), min_size=1)):
        record[field] = data.draw(ANYTHING)
    unjoined = Joined(None, [], labels_dropped=0, missing=0, unlabelled=0)
    (row,) = rows.browser_rows([record], unjoined)
    shown = json.loads(json.dumps(dataclasses.asdict(row), allow_nan=False))
    assert all(isinstance(text, str) for text in (shown["question"], shown["explanation"], *shown["answers"]))
    for numbers in (shown["scores"], shown["probabilities"], *(order["scores"] for order in shown["orders"].values())):
        assert numbers is None or all(value is None or type(value) in (int, float) for value in numbers)


@pytest.mark.parametrize(
    ("record", "close"),
    [
        ({"probabilities": {"1": 0.5, "0": 0.2, "2": 0.3}}, True),
        ({"probabilities": {"1": 0.9, "0": 0.05, "2": 0.05}}, False),
        ({"scores": [7.5, 7]}, True),
        ({"scores": [7, 7]}, False),
        ({"scores": [8, 7]}, False),
        ({"scores": None}, False),
        ({"scores": [None, None]}, False),
    ],
)
def test_a_close_call_is_one_that_the_judge_hardly_decides(record, close):
    assert rows.is_close({"answer1_body": "a", "answer2_body": "b", **record}) == close


def test_the_commands_write_a_report_with_page_markdown_json_and_figures(files, tmp_path, capsys):
    judgments, labels = files
    arguments = [f"--labels={labels}", f"--predictions={judgments}", f"--report={tmp_path / 'judge'}"]
    assert run(evaluate.main, evaluate.FLAGS, "evaluate", arguments) == 0
    assert f"{tmp_path / 'judge' / 'index.html'}" in capsys.readouterr().out
    ranked = [f"--judgments={judgments}", "--by=category", f"--report={tmp_path / 'rank'}"]
    assert run(rank.main, rank.FLAGS, "rank", ranked) == 0
    for folder in (tmp_path / "judge", tmp_path / "rank"):
        assert {path.name for path in folder.iterdir()} == {"index.html", "report.md", "report.json", "figures"}
        assert json.loads((folder / "report.json").read_text())["ranking"]["models"][0]["name"] == "alpha"
        with Image.open(folder / "figures/ranking.png") as picture:
            assert picture.width > 600
    assert run(evaluate.main, evaluate.FLAGS, "evaluate", arguments) == 2
    assert "exists already" in capsys.readouterr().err
    assert run(evaluate.main, evaluate.FLAGS, "evaluate", [*arguments, "--overwrite"]) == 0


def test_a_report_replaces_nothing_else(content, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    with pytest.raises(InputError, match=r"thesis\.tex"):
        check_folder(tmp_path / "mine", overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        check_folder(tmp_path / "file", overwrite=True)
    with pytest.raises(InputError, match="folder above it"):
        check_folder(tmp_path / "no/where", overwrite=False)
    check_folder(tmp_path / "new", overwrite=False)
    write_report(content, tmp_path / "new")
    with pytest.raises(InputError, match="--overwrite"):
        check_folder(tmp_path / "new", overwrite=False)
    check_folder(tmp_path / "new", overwrite=True)


def test_ranking_and_records_follow_the_decision(tmp_path, capsys):
    """Each judgment says that amber wins; by the mean scores birch does, by the most likely scores it is a tie."""
    order = {"pred_text": "8 3", "winner": 1, "status": "ok", "expected_scores": [3.5, 6.5], "scores": [5, 5]}
    shared = {
        "question_body": "q", "answer1_body": "a", "answer2_body": "b",
        "answer1_model_id": "amber", "answer2_model_id": "birch", **order, "order": "both", "forward": order,
        "reversed": {**order, "pred_text": "3 8"},
    }  # fmt: skip
    judgments, labels = tmp_path / "judgments.jsonl", tmp_path / "labels.jsonl"
    judgments.write_text("".join(json.dumps({"question_id": number, **shared}) + "\n" for number in range(6)))
    labels.write_text(json.dumps({"question_id": 0, "winner": 2}) + "\n")  # the others have none
    for decide, best, rate, winner in (("winner", "amber", 1.0, 1), ("mean", "birch", 0.0, 2), ("mode", None, 0.5, 0)):
        report = tmp_path / decide
        arguments = [f"--predictions={judgments}", f"--labels={labels}", f"--decide={decide}", f"--report={report}"]
        assert run(evaluate.main, evaluate.FLAGS, "evaluate", arguments) == 0
        models = json.loads((report / "report.json").read_text())["ranking"]["models"]
        assert {model["name"]: model["win_rate"] for model in models} == {"amber": rate, "birch": 1 - rate}
        assert best in (None, models[0]["name"])
        shown = rows.browser_rows(
            [row for _, row in read_jsonl(judgments)], join(labels, judgments, None, "tolerant", decide=decide)
        )
        assert {(row.winner, *(order["winner"] for order in row.orders.values())) for row in shown} == {(winner,) * 3}
    capsys.readouterr()


def test_without_labels_the_records_and_the_figure_show_the_same_consistency(files, joined):
    """As of `rank`, which joins nothing."""
    judgments = [row for _, row in read_jsonl(files[0])]
    shown = rows.browser_rows(judgments, Joined(None, [], labels_dropped=0, missing=0, unlabelled=0))
    assert ["inconsistent" in row.marks for row in shown] == [not row["consistent"] for row in judgments]
    with_labels = rows.browser_rows(judgments, joined)
    one, other = (figures.consistency_figure(some) for some in (shown, with_labels))
    assert one.png == other.png


def test_the_second_order_may_stand_in_a_second_file(tmp_path):
    texts = {"question_id": 1, "question_body": "q", "answer1_body": "a", "answer2_body": "b"}
    files = [tmp_path / "forward.jsonl", tmp_path / "reversed.jsonl"]
    for file, text in zip(files, ("8 3", "7 2"), strict=True):
        file.write_text(json.dumps(texts | {"pred_text": text}) + "\n")
    (row,) = rows.browser_rows([texts | {"pred_text": "8 3"}], join(None, *files, "tolerant"))
    assert {name: order["winner"] for name, order in row.orders.items()} == {"forward": 1, "reversed": 2}
    assert row.marks == ["inconsistent"]


@pytest.mark.parametrize(
    ("scores", "consistent"),
    [
        ([[0, 9, 9], [9, 0, 9], [9, 9, 0]], False),  # a tie in each order, and each time of others
        ([[1, 9, 9], [2, 8, 8], [0, 7, 7]], True),
        ([[5, 5, 5], [3, 3, 3], [4, 4, 4]], True),
        ([[9, 1, 1], [8, 2, 1], [9, 3, 8]], True),
        ([[9, 1, 1], [2, 8, 1], [9, 3, 8]], False),
        ([[9, 9, 1], [9, 8, 1], [9, 8, 1]], False),
        ([[9, 1, 1], None, [9, 1, 1]], False),
    ],
)
def test_several_answers_are_consistent_where_the_same_ones_are_best(scores, consistent):
    shown = [[1, 2, 3], [2, 3, 1], [3, 1, 2]]
    arrangements = [
        {
            "order": order,
            "scores": own,
            "pred_text": "",
            "winner": own and (own.index(max(own)) + 1) * (own.count(max(own)) == 1),
        }
        for order, own in zip(shown, scores, strict=True)
    ]
    texts = {"question_id": 1, "question_body": "q", "answer1_body": "a", "answer2_body": "b", "answer3_body": "c"}
    record = texts | {"order": "arrangements", "status": "ok", "winner": 0, "scores": [6, 6, 6], "arrangements": arrangements}
    (row,) = rows.browser_rows([record], Joined(None, [], labels_dropped=0, missing=0, unlabelled=0))
    assert list(row.orders) == ["order 1 (1, 2, 3)", "order 2 (2, 3, 1)", "order 3 (3, 1, 2)"]
    assert ("inconsistent" in row.marks) == (not consistent and None not in scores)


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=["full", "stopped"]
)
def test_a_report_that_cannot_be_written_leaves_the_one_before(content, tmp_path, monkeypatch, failure):
    folder = tmp_path / "report"
    write_report(content, folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.rglob("*")}
    write = Path.write_bytes

    def fails(path, data):
        if path.name.endswith(".png"):
            raise failure
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(type(failure)) as raised:
        write_report(content, folder)
    if isinstance(failure, OSError):
        assert raised.value.filename == folder
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert {path.name: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
