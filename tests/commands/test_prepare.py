"""The `prepare` command, from its arguments to its files and exit codes."""

import json
from pathlib import Path

import pytest

from judgelm_jax.commands import prepare
from judgelm_jax.commands.command_line import run
from judgelm_jax.prompts.prompts import render
from judgelm_jax.records.records import check_records


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def run_prepare(*arguments: object) -> int:
    prepare.FLAGS.unparse_flags()
    for name in prepare.FLAGS:
        prepare.FLAGS[name].unparse()
    return run(prepare.main, prepare.FLAGS, "prepare", [str(argument) for argument in arguments])


def answers(path: Path, ids: list, **fields: object) -> Path:
    return write(
        path, *({"question_id": key, "question_body": f"q{key}\n", "text": f"{path.stem}{key}", **fields} for key in ids)
    )


def test_two_answer_files_become_records_in_the_order_of_the_first(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = answers(tmp_path / "a.jsonl", [2, 1], model="m1", decoding_method="greedy", scores={"logprob": -1.5})
    two = answers(tmp_path / "b.jsonl", ["1", "2"], reference={"text": "r", "model": "x"})
    output, counts = tmp_path / "S.jsonl", tmp_path / "c.json"
    assert run_prepare(f"--answers={one}", f"--answers={two}", f"--output={output}", f"--json={counts}") == 0
    rows = read(output)
    assert rows[0] == {
        "question_id": 2,
        "question_body": "q2\n",
        "answer1_body": "a2",
        "answer1_model_id": "m1",
        "answer1_metadata": {"decoding_method": "greedy"},
        "answer2_body": "b2",
        "answer2_model_id": "b",
        "answer2_metadata": {},
        "score": [{"logprob": -1.5}, None],
        "reference": {"text": "r", "model": "x"},
    }
    assert rows[1]["question_id"] == 1
    assert check_records(output).records == 2
    assert json.loads(counts.read_text())["records"] == 2
    assert "2 records with 2 answers each, 2 of them with a reference" in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 3, 5])
def test_any_number_of_models_can_be_joined(tmp_path: Path, count: int) -> None:
    files = [answers(tmp_path / f"m{number}.jsonl", [1, 2]) for number in range(1, count + 1)]
    assert run_prepare(*(f"--answers={path}" for path in files), f"--output={tmp_path / 'S.jsonl'}") == 0
    row = read(tmp_path / "S.jsonl")[1]
    assert [row[f"answer{number}_body"] for number in range(1, count + 1)] == [f"m{number}2" for number in range(1, count + 1)]
    assert f"answer{count + 1}_body" not in row


def test_all_pairs_of_the_answers_become_records(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = [answers(tmp_path / f"m{number}.jsonl", [7, 8], reference="r") for number in range(1, 5)]
    files[1] = answers(tmp_path / "m2.jsonl", [7, 8], reference="r", scores={"logprob": -2.0})
    output = tmp_path / "S.jsonl"
    assert run_prepare(*(f"--answers={path}" for path in files), "--pairs=all", f"--output={output}") == 0
    rows = read(output)
    assert [row["pair_id"] for row in rows[:6]] == ["7/1-2", "7/1-3", "7/1-4", "7/2-3", "7/2-4", "7/3-4"]
    for row in rows:
        question, pair = row["pair_id"].split("/")
        one, two = pair.split("-")
        assert (row["question_id"], row["question_body"], row["reference"]) == (
            int(question),
            f"q{question}\n",
            "r",
        )
        assert (row["answer1_body"], row["answer2_body"]) == (f"m{one}{question}", f"m{two}{question}")
        assert (row["answer1_model_id"], row["answer2_model_id"]) == (f"m{one}", f"m{two}")
        assert row["score"] == [{"logprob": -2.0} if number == "2" else None for number in (one, two)]
        assert "answer3_body" not in row
    assert check_records(output).records == len(rows) == 12
    assert "12 records with 2 answers each, 12 of them with a reference" in capsys.readouterr().out


def test_a_file_of_references_replaces_those_of_the_answers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = answers(tmp_path / "a.jsonl", [1, 2], reference="old")
    references = write(tmp_path / "r.jsonl", {"question_id": "1", "reference": "new"}, {"question_id": 9, "reference": "x"})
    output = tmp_path / "S.jsonl"
    assert run_prepare(f"--answers={one}", f"--references={references}", f"--output={output}") == 0
    assert [row.get("reference") for row in read(output)] == [{"text": "new"}, None]
    assert "1 references belong to no question" in capsys.readouterr().out


def test_values_that_are_no_strings_become_strings_and_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = write(tmp_path / "a.jsonl", {"question_id": 1, "question_body": 5, "text": True})
    two = write(tmp_path / "b.jsonl", {"question_id": 1, "question_body": "5", "text": None})
    output = tmp_path / "S.jsonl"
    assert run_prepare(f"--answers={one}", f"--answers={two}", f"--output={output}") == 0
    assert [read(output)[0][name] for name in ("question_body", "answer1_body", "answer2_body")] == ["5", "true", ""]
    shown = capsys.readouterr().out
    assert "2 values were no strings" in shown
    assert "1 answers were null and are empty" in shown


def test_pandalm_becomes_records_and_labels(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = shared / "data/benchmarks/pandalm/testset-v1.json"
    output, labels = tmp_path / "S.jsonl", tmp_path / "L.jsonl"
    assert run_prepare("--benchmark=pandalm", f"--data={data}", f"--output={output}", f"--labels={labels}") == 0
    assert len(read(output)) == len(read(labels)) == 999
    assert "422 first, 472 second, 105 ties" in " ".join(capsys.readouterr().out.split())


def refusal(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    """The one line on stderr of a run that must end with exit code 2."""
    assert run_prepare(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_questions_that_do_not_meet_are_named_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "S.jsonl"
    one, two = answers(tmp_path / "a.jsonl", [1, 2]), answers(tmp_path / "b.jsonl", [1])
    assert f"{one}:2: question_id '2'" in refusal(capsys, f"--answers={one}", f"--answers={two}", f"--output={output}")
    assert f"{one}:2: question_id '2'" in refusal(capsys, f"--answers={two}", f"--answers={one}", f"--output={output}")
    other = write(tmp_path / "c.jsonl", {"question_id": 1, "question_body": "another", "text": ""})
    assert f"{other}:1: question_body" in refusal(capsys, f"--answers={two}", f"--answers={other}", f"--output={output}")
    double = answers(tmp_path / "d.jsonl", [1, 1])
    assert f"{double}:2: question_id '1' is already in {double}:1" in refusal(
        capsys, f"--answers={double}", f"--output={output}"
    )
    differing = [answers(tmp_path / f"{text}.jsonl", [1], reference=text) for text in ("r", "s")]
    assert "s.jsonl:1: reference" in refusal(capsys, *(f"--answers={path}" for path in differing), f"--output={output}")
    untold = write(tmp_path / "e.jsonl", {"question_id": 1, "text": ""})
    assert f"{untold}:1: the field 'question_body'" in refusal(capsys, f"--answers={untold}", f"--output={output}")
    assert not output.exists()


def test_flags_that_do_not_go_together_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    output, one = f"--output={tmp_path / 'S.jsonl'}", answers(tmp_path / "a.jsonl", [1])
    assert "--answers" in refusal(capsys, output)
    assert "--answers" in refusal(capsys, output, f"--answers={one}", "--benchmark=pandalm")
    assert "--labels" in refusal(capsys, output, "--benchmark=pandalm", f"--data={one}")
    assert "--labels" in refusal(capsys, output, f"--answers={one}", f"--labels={tmp_path / 'L'}")
    assert "two models" in refusal(capsys, output, f"--answers={one}", "--pairs=all")
    assert "two models" in refusal(capsys, output, "--benchmark=pandalm", f"--data={one}", "--pairs=all")
    assert "nope" in refusal(capsys, output, f"--answers={one}", "--nope")
    needed = (output, f"--data={one}", f"--labels={tmp_path / 'L'}")
    assert "pandalm knows majority" in refusal(capsys, *needed, "--benchmark=pandalm", "--reduction=mean")
    assert "has questions only" in refusal(capsys, *needed, "--benchmark=mm_vet")
    assert "nope.jsonl" in refusal(capsys, output, "--answers=nope.jsonl")
    assert "output" in refusal(capsys, f"--answers={one}")
    clash = f"--labels={tmp_path / 'S.jsonl'}"
    assert "S.jsonl" in refusal(capsys, output, "--benchmark=pandalm", f"--data={one}", clash)


def test_an_output_that_exists_is_kept_unless_told_otherwise(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one, output = answers(tmp_path / "a.jsonl", [1]), tmp_path / "S.jsonl"
    output.write_text("precious")
    assert "--overwrite" in refusal(capsys, f"--answers={one}", f"--output={output}")
    assert output.read_text() == "precious"
    assert "a.jsonl" in refusal(capsys, f"--answers={one}", f"--output={one}", "--overwrite")
    assert run_prepare(f"--answers={one}", f"--output={output}", "--overwrite") == 0
    assert len(read(output)) == 1


def test_four_files_of_mt_bench_become_pairs_with_their_size_said(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder, output, counts = shared / "data/benchmarks/mt_bench", tmp_path / "S.jsonl", tmp_path / "c.json"
    files = [f"--answers={path}" for path in sorted((folder / "model_answer").iterdir())]
    flags = (*files, f"--questions={folder / 'question.jsonl'}", f"--output={output}", f"--json={counts}")
    assert run_prepare(*flags, "--pairs=all") == 0
    rows = read(output)
    assert check_records(output).records == len(rows) == 80 * 6
    assert "80 questions and 4 models give 480 pairs" in capsys.readouterr().out
    characters = sum(
        len(
            render(
                "pair", row["question_body"], [row["answer1_body"], row["answer2_body"]], row.get("reference", {}).get("text")
            )
        )
        for row in rows
    )
    assert json.loads(counts.read_text())["prompt_characters"] == characters
    assert {row["answer1_model_id"] for row in rows} < {Path(name).stem for name in files}
    assert run_prepare(*flags, "--pairs=baseline:llama-13b", "--overwrite") == 0
    assert [row["answer1_model_id"] for row in read(output)] == ["llama-13b"] * 240
    assert run_prepare(*flags, "--pairs=sample:2", "--overwrite", "--turns=1") == 0
    assert len(read(output)) == 160
    assert "[Turn 2]" not in output.read_text()


def test_questions_that_not_all_answered_are_left_out_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one, two = answers(tmp_path / "a.jsonl", [1, 2, 3]), answers(tmp_path / "b.jsonl", [3, 1, 9])
    output, counts = tmp_path / "S.jsonl", tmp_path / "c.json"
    flags = (f"--answers={one}", f"--answers={two}", "--join=inner", f"--output={output}", f"--json={counts}")
    assert run_prepare(*flags) == 0
    assert [row["question_id"] for row in read(output)] == [1, 3]
    assert json.loads(counts.read_text())["left_out"] == 2
    assert "2 questions that not all models answered are left out" in capsys.readouterr().out


def test_a_table_with_its_own_names_is_mapped(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text(f"nr,prompt,reply\n1,why?,because {name}\n")
    columns = [
        f"--map={field}={column}" for field, column in (("question_id", "nr"), ("question_body", "prompt"), ("text", "reply"))
    ]
    files = [f"--answers={tmp_path / f'{name}.csv'}" for name in "ab"]
    assert run_prepare(*files, *columns, f"--output={tmp_path / 'S.jsonl'}") == 0
    (row,) = read(tmp_path / "S.jsonl")
    assert (row["question_body"], row["answer1_body"], row["answer2_body"]) == ("why?", "because a", "because b")
    assert (row["answer1_model_id"], row["answer2_model_id"]) == ("a", "b")


@pytest.mark.parametrize("value", ["some", "baseline:", "sample:0", "sample:x", "sample:-1", "all:2", "sample"])
def test_pairs_that_nobody_knows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture, value: str) -> None:
    files = [f"--answers={answers(tmp_path / f'{name}.jsonl', [1])}" for name in "ab"]
    assert "all, baseline:NAME or sample:K" in refusal(capsys, *files, f"--pairs={value}", f"--output={tmp_path / 'S'}")


def test_a_file_that_is_given_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = answers(tmp_path / "a.jsonl", [1])
    again = tmp_path / "." / "b" / ".." / "a.jsonl"
    (tmp_path / "b").mkdir()
    assert "is given twice" in refusal(capsys, f"--answers={one}", f"--answers={again}", f"--output={tmp_path / 'S'}")


def test_two_files_of_one_model_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "b").mkdir()
    one, other = answers(tmp_path / "a.jsonl", [1]), answers(tmp_path / "b/a.jsonl", [1])
    assert "two of the --answers are of a model 'a'" in refusal(
        capsys, f"--answers={one}", f"--answers={other}", f"--output={tmp_path / 'S'}"
    )


def test_a_map_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = answers(tmp_path / "a.jsonl", [1])
    for value in ("text", "=x", "text="):
        assert "FIELD=COLUMN" in refusal(capsys, f"--answers={one}", f"--map={value}", f"--output={tmp_path / 'S'}")
