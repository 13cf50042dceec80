"""`judgelm-judge` on one answer and on many: what is refused, and that no way of running changes a verdict."""

import json

import pytest
import scipy.stats
from asked_kinds import ASKED, REASONING, records_of
from judge_command import GOOD, assert_one_line, read, run, without_marks, write

from judgelm_jax import Judge, laboratory
from judgelm_jax.commands import benchmark, command_line
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.records.json_lines import dump_line

ONE = {"question_id": 1, "question_body": "q", "answer1_body": "a", "reference": "r"}
THREE = {**GOOD, "answer3_body": "c"}


def many(count):
    return {"question_id": 2, "question_body": "q", **{f"answer{number}_body": "a" for number in range(1, count + 1)}}


@pytest.mark.parametrize(
    ("kind", "row", "flags", "says"),
    [
        ("multi", ONE | {"question_id": 2}, [], "'answer2_body' is missing"),
        ("multi", {**many(5), "answer7_body": "x"}, [], "'answer7_body' is there without 'answer6_body'"),
        ("multi", many(3), ["--orders=forward"], "--orders=forward is of two answers, and this record has 3"),
        ("multi", many(3), ["--arrangements=4"], "--arrangements=4 is more than the 3 answers"),
        ("multi", many(2), ["--arrangements=3"], "--arrangements=3 is more than the 2 answers"),
        ("multi", many(5), ["--arrangements=all"], "use --arrangements=5"),
        ("multi", {**THREE, "question_id": 2, "arrangements": 1}, [], "the field 'arrangements' is one that the judgment has"),
        ("single", {**ONE, "question_id": 2, "reference": None}, [], "has none; add the field 'reference'"),
        ("single", {**ONE, "question_id": 2, "reference_used": 1}, [], "the field 'reference_used' is one that"),
        ("single", many(3), [], "there are 3 answers where 2 are judged"),
        ("single", {**ONE, "question_id": 2}, ["--orders=both"], "--orders=both is of two answers, and this record has 1"),
        ("single", {**ONE, "question_id": 2}, ["--arrangements=2"], "--arrangements=2 is more than the 1 answer"),
        ("pair", {**GOOD, "question_id": 2}, ["--arrangements=2", "--orders=both"], "give one of the two"),
        ("pair", {"question_id": 2, "conversation_1": [], "conversation_2": []}, [], "judge it with --kind=conversation"),
        ("pair", many(40), [], "there are 40 answers where 2 are judged"),
    ],
)
def test_a_record_that_does_not_fit_the_kind_is_named_before_the_model_is_looked_for(tmp_path, capfd, kind, row, flags, says):
    first = {"multi": GOOD, "single": ONE, "pair": GOOD}[kind]
    if any(flag.startswith(("--orders", "--arrangements")) for flag in flags):
        source, place = write(tmp_path / "records.jsonl", [row]), 1
    else:
        source, place = write(tmp_path / "records.jsonl", [first, row]), 2
    arguments = [f"--model={tmp_path / 'none'}", f"--input={source}", f"--output={tmp_path / 'o.jsonl'}", f"--kind={kind}"]
    assert run(*arguments, *flags) == 2
    assert_one_line(capfd, f"{source}:{place}: ", says)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--kind=multi", "--arrangements=0"], "--arrangements=0: must be a number from 1 on, or all"),
        (["--kind=multi", "--arrangements=some"], "--arrangements=some: must be a number"),
        (["--kind=single", "--on_overflow=pairs"], "on_overflow=pairs judges many answers"),
        (["--on_overflow=pairs"], "on_overflow=pairs judges many answers"),
        (["--kind=single", "--mode=distribution", "--score_grid=3:3:1"], "--score_grid=3:3:1: must be"),
        (["--kind=poem"], "--kind"),
        (
            ["--kind=multi", "--mode=distribution", "--calibration={folder}/c.json"],
            "--calibration corrects the probabilities of pairs",
        ),
    ],
)
def test_flags_that_do_not_go_together_are_refused(tmp_path, capfd, flags, says):
    (tmp_path / "c.json").write_text(json.dumps({"temperature": 1.0, "tie_threshold": 0.2}))
    source = write(tmp_path / "records.jsonl", [THREE])
    arguments = [f"--model={tmp_path / 'none'}", f"--input={source}", f"--output={tmp_path / 'o.jsonl'}"]
    assert run(*arguments, *(flag.format(folder=tmp_path) for flag in flags)) == 2
    assert_one_line(capfd, says)


def test_more_answers_than_the_context_holds_are_refused_by_line(laboratory_checkpoint, tmp_path, capfd):
    source = write(tmp_path / "records.jsonl", [THREE, many(40)])
    arguments = [f"--model={laboratory_checkpoint}", f"--input={source}", f"--output={tmp_path / 'o.jsonl'}", "--kind=multi"]
    for mode in ("scores", "explain", "distribution"):
        assert run(*arguments, f"--mode={mode}", "--context=1024", "--max_new_tokens=64") == 2
        assert_one_line(capfd, f"{source}:2: 40 answers need ", "--on_overflow=pairs")
    assert list(tmp_path.iterdir()) == [source]


def judged(folder, name, model, kind, *flags):
    source = folder / f"{kind}.jsonl"
    if not source.exists():
        source.write_text("".join(dump_line(record) + "\n" for record in records_of(kind)))
    target = folder / f"{name}.jsonl"
    assert run(f"--model={model}", f"--input={source}", f"--output={target}", f"--kind={kind}", *flags) == 0
    return without_marks(read(target)) if target.exists() else None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "mode"),
    [
        ("single", "scores"),
        ("single", "distribution"),
        ("multi", "scores"),
        ("multi", "distribution"),
        ("multimodal", "distribution"),
        ("conversation", "scores"),
        ("pandalm", "distribution"),
        ("reasoning", "distribution"),
    ],
)
def test_shards_resume_batches_and_eight_devices_change_no_verdict(
    laboratory_checkpoint, one_device, tmp_path, monkeypatch, asked, mode
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reasoning.toml").write_text(REASONING)
    model = laboratory_checkpoint
    temperature = 2.0 if mode == "scores" else 0.0  # an untrained judge's likeliest line is always the same
    own = {"kind": "pair", **ASKED[asked], "mode": mode, "dtype": "float32", "temperature": temperature}
    kind, flags = own["kind"], [f"--{name}={value}" for name, value in own.items() if name != "kind"]
    judge = Judge.load(str(model), one_device, JudgeConfig(**own))
    whole = without_marks([judgment.row for judgment in judge.judge(records_of(kind))])
    for row in whole:
        row["pred_model_id"] = model.name
    assert [row["question_id"] for row in whole] == list(range(6))
    assert {row["status"] for row in whole} == {"ok"}
    assert len({json.dumps(row.get("expected_scores", row.get("probabilities", row["scores"]))) for row in whole}) > 1
    on_a_mesh = judged(tmp_path, "mesh", model, kind, *flags, "--mesh=data:2,fsdp:2,tensor:2", "--batch_size=1")
    assert_same(on_a_mesh, whole)
    # Each on all eight devices.
    assert judged(tmp_path, "shards", model, kind, *flags, "--shard=0/2") is None
    assert_same(judged(tmp_path, "shards", model, kind, *flags, "--shard=1/2"), whole)
    # A run that was killed in the middle of a line goes on.
    assert judged(tmp_path, "again", model, kind, *flags, "--shard=0/2") is None
    shard = tmp_path / "again.jsonl.partial" / "shard-00000-of-00002.jsonl"
    first, second, _ = shard.read_bytes().splitlines(keepends=True)
    shard.write_bytes(first + second[: len(second) // 2])
    shard.with_suffix(".done").unlink()
    assert judged(tmp_path, "again", model, kind, *flags, "--shard=0/2", "--resume") is None
    assert shard.read_bytes().startswith(first)
    assert_same(judged(tmp_path, "again", model, kind, *flags, "--shard=1/2", "--resume"), whole)


def assert_same(rows, whole):
    """Equal, probabilities up to what float32 rounds."""
    for one, other in zip(rows, whole, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            if name in ("probabilities", "score_probabilities"):
                assert one[name] == pytest.approx(other[name], abs=1e-4)
            elif name in (
                "expected_scores",
                "entropy",
                "covered_mass",
                "position_bias",
                "position_effects",
                "soft_score",
                "score",
            ):
                assert one[name] == pytest.approx(other[name], rel=1e-3, abs=1e-4)
            elif name in ("arrangements", "alternatives"):
                assert_same(one[name], other[name])
            elif name in ("forward", "reversed"):
                assert_same([one[name]], [other[name]])
            else:
                assert one[name] == other[name], name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "scores"),
    [("single", [1] * 6), ("multi", [2, 3, 3, 3, 3, 3]), ("multimodal", [1] * 6), ("conversation", [2] * 6)],
)
def test_bfloat16_judges_every_kind(laboratory_checkpoint, tmp_path, kind, scores):
    rows = judged(tmp_path, "half", laboratory_checkpoint, kind)
    assert {row["status"] for row in rows} == {"ok"}
    assert [len(row["scores"]) for row in rows] == scores


@pytest.mark.slow
def test_benchmarks_of_graded_answers_and_of_four_are_judged(laboratory_checkpoint, tmp_path):
    answers = [[pair.record["answer1_body"], pair.record["answer2_body"]] for pair in laboratory.make_pairs(8, seed=6)]
    graded = [
        {"orig_instruction": f"Which {n}?", "orig_response": one, "orig_reference_answer": other, "orig_criteria": "c"}
        | {"orig_score": str(1 + n % 5)}
        for n, (one, other) in enumerate(answers)
    ]
    of_four = [
        {"id": str(n), "subset": "Math", "prompt": f"Which {n}?", "chosen": [one], "rejected": [other, "No.", "Yes."]}
        for n, (one, other) in enumerate(answers[:4])
    ]
    for name, rows, count in (("prometheus", graded, 1), ("rewardbench2", of_four, 4)):
        data, folder = tmp_path / f"{name}.jsonl", tmp_path / name
        data.write_text("".join(dump_line(row) + "\n" for row in rows))
        flags = [f"--name={name}", f"--data={data}", f"--model={laboratory_checkpoint}", f"--output={folder}"]
        flags += ["--dtype=float32", f"--mode={'distribution' if count == 1 else 'scores'}"]
        assert command_line.run(benchmark.main, benchmark.FLAGS, "benchmark", flags) == 0
        judgments, metrics = read(folder / "judgments.jsonl"), json.loads((folder / "metrics.json").read_text())
        assert [len(row["scores"]) for row in judgments] == [count] * len(rows)
        labels = read(folder / "labels.jsonl")
        if count == 4:
            best = [{n for n, score in enumerate(row["scores"], 1) if score == max(row["scores"])} for row in judgments]
            shares = [len(own & set(label["correct"])) / len(own) for own, label in zip(best, labels, strict=True)]
            assert metrics["score"] == pytest.approx(sum(shares) / 4)
        else:
            scores = [[row["expected_scores"][0] for row in judgments], [label["score"] for label in labels]]
            assert metrics["score"] == pytest.approx(scipy.stats.pearsonr(*scores).statistic)
