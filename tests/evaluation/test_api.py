"""`judgelm_jax.evaluate` says what the command says, of files and of rows."""

import json
from types import SimpleNamespace

import pytest

import judgelm_jax
from judgelm_jax.commands import evaluate
from judgelm_jax.commands.command_line import run
from judgelm_jax.errors import InputError
from judgelm_jax.records.json_lines import dump_line

LABELS = [{"question_id": number // 2, "pair_id": f"p{number}", "winner": number % 3} for number in range(12)]
JUDGMENTS = [
    {"question_id": number // 2, "pair_id": f"p{number}", "pred_text": f"{8 - number % 3} {6 + number % 2}"}
    for number in range(12)
]


def test_it_returns_the_summary_of_the_command(tmp_path):
    for name, rows in (("labels", LABELS), ("judgments", JUDGMENTS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(dump_line(row) + "\n" for row in rows))
    labels, judgments = tmp_path / "labels.jsonl", tmp_path / "judgments.jsonl"
    arguments = [f"--labels={labels}", f"--predictions={judgments}", f"--json={tmp_path / 'a.json'}", "--unparsed=tie"]
    assert run(evaluate.main, evaluate.FLAGS, "evaluate", [*arguments, f"--against={judgments}"]) == 0
    expected = json.loads((tmp_path / "a.json").read_text())
    from_rows = judgelm_jax.evaluate(LABELS, [SimpleNamespace(row=row) for row in JUDGMENTS], unparsed="tie", against=JUDGMENTS)
    from_files = judgelm_jax.evaluate(str(labels), judgments, unparsed="tie", against=iter(JUDGMENTS))
    for summary in (from_rows, from_files):
        assert json.loads(dump_line(summary)) == expected
    right = sum(label["winner"] == wins(row["pred_text"]) for label, row in zip(LABELS, JUDGMENTS, strict=True))
    assert from_rows["agreement"] == pytest.approx(right / 12)


def wins(line):
    first, second = map(int, line.split())
    return 0 if first == second else 1 if first > second else 2


def test_bad_rows_are_named_by_what_they_are_and_their_number():
    with pytest.raises(InputError, match=r"judgments:2: .*already in line 1"):
        judgelm_jax.evaluate(LABELS, [JUDGMENTS[0], JUDGMENTS[0]])
    with pytest.raises(InputError, match="labels:1: "):
        judgelm_jax.evaluate([{"question_id": 1}], JUDGMENTS)
    with pytest.raises(InputError, match="judgments: no row has an id of labels"):
        judgelm_jax.evaluate([{"question_id": "x", "winner": 1}], JUDGMENTS)
    with pytest.raises(ValueError, match="decide is 'median'"):
        judgelm_jax.evaluate(LABELS, JUDGMENTS, decide="median")
