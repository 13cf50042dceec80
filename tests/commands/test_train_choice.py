"""What a run measures, which step it leaves, and what it is told before it begins."""

import dataclasses
import json
import runpy

import numpy as np
import pytest
from train_command import CONFIG

from judgelm_jax import laboratory
from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.commands import train
from judgelm_jax.commands.command_line import run
from judgelm_jax.model import decoder
from judgelm_jax.records.json_lines import dump_line
from judgelm_jax.training import setup
from judgelm_jax.training_config import ModelShape

from .test_train import failure


def write(path, records):
    path.write_text("".join(dump_line(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("choice")
    laboratory.write_tokenizer(folder, sentences=True)
    (folder / "config.py").write_text(CONFIG)
    write(folder / "train.jsonl", laboratory.training_records(120, seed=1))
    write(folder / "held-out.jsonl", laboratory.training_records(40, seed=2))
    return folder


def arguments(files, output, *more, data=None, held_out=None):
    return [
        f"--config={files / 'config.py'}", f"--data={data or files / 'train.jsonl'}", f"--tokenizer={files}",
        f"--evaluation={held_out or files / 'held-out.jsonl'}", f"--output={output}",
        "--config.training.steps=4", "--config.evaluation.every=1", "--config.evaluation.records=16",
        "--config.checkpoints.keep=1", *more,
    ]  # fmt: skip


def weights(folder):
    checkpoint = open_checkpoint(str(folder))
    return decoder.logits(checkpoint.load(None, "float32"), checkpoint.config, np.array([[3, 4, 5, 6]]))


@pytest.mark.parametrize(
    ("more", "step"),
    [
        pytest.param(["--config.training.learning_rate=3e-2"], 4, marks=pytest.mark.slow),
        (["--config.training.learning_rate=9.0", "--config.training.warmup=0.25"], 1),  # which changes nothing
        (["--config.training.learning_rate=9.0", "--config.training.warmup=0.25", "--config.checkpoints.best_by=last"], 4),
    ],
    ids=["falling", "rising", "last"],
)
def test_everything_speaks_of_the_step_that_is_left(more, step, files, tmp_path, capsys):
    output = tmp_path / "run"
    own = arguments(files, output, *more, f"--json={tmp_path / 'summary.json'}")
    assert run(train.main, train.FLAGS, "train", own) == 0
    out = capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_text())
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    measured = {line["step"]: line for line in lines if line["kind"] == "evaluation"}
    assert sorted(measured) == [1, 2, 3, 4]
    assert summary["exported_step"] == step
    assert f"of step {step}: {summary['why']}" in out
    if "best_by=last" not in more[-1]:
        assert measured[4]["chosen_step"] == step
        assert measured[4]["why"] == summary["why"]
        assert min(measured.values(), key=lambda line: line["loss"])["step"] == step
    assert summary["evaluation"]["step"] == step
    assert summary["evaluation"]["loss"] == measured[step]["loss"]
    assert (measured[step]["records"], measured[step]["questions"]) == (16, 16)
    assert ("at the end" in out) == (step != 4)
    np.testing.assert_array_equal(weights(output / "model"), weights(output / "checkpoints" / str(step)))
    card = (output / "model" / "README.md").read_text()
    assert f'"step": "{step}"' in card
    assert (summary["why"].split("; ")[0] in card) == ("best_by=last" not in more[-1])
    kept = {int(path.name) for path in (output / "checkpoints").iterdir()}
    assert kept == {step, 4}
    # Gone on with when all is done, it says the same; the epochs are those of the whole run.
    again = [argument for argument in own if not argument.startswith("--json")]
    assert run(train.main, train.FLAGS, "train", [*again, "--resume", f"--json={tmp_path / 'again.json'}"]) == 0
    assert "compiling" not in capsys.readouterr().err
    same = json.loads((tmp_path / "again.json").read_text())
    for name in ("exported_step", "epochs", *(("why", "evaluation") if "best_by=last" not in more[-1] else ())):
        assert same[name] == summary[name], name
    assert sum(epoch["rows"] for epoch in summary["epochs"].values()) == 4 * 8  # of four steps, not of whole epochs


def test_what_is_left_out_of_training_is_said(files, tmp_path, capsys):
    records = list(laboratory.training_records(100, seed=4))
    failed = [record | {"text": "error", "score": [-1, -1]} for record in records[:76]]
    write(tmp_path / "failed.jsonl", failed + records[76:])
    own = arguments(files, tmp_path / "run", data=tmp_path / "failed.jsonl")
    assert run(train.main, train.FLAGS, "train", own) == 0
    assert (
        f"{tmp_path / 'failed.jsonl'}: 76 % of 100 records are left out: the teacher failed in 76, and 0 do not fit"
        in capsys.readouterr().err
    )
    write(tmp_path / "failed.jsonl", failed)
    said = failure(capsys, arguments(files, tmp_path / "other", data=tmp_path / "failed.jsonl"))
    assert "failed.jsonl: no row to train on (76 rows in which the teacher failed)" in said
    said = failure(capsys, arguments(files, tmp_path / "other", "--config.data.length=16", "--config.data.on_overflow=skip"))
    assert "no record fits a row of 16 tokens" in said
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("on_overflow", "long", "said"), [("error", 1, "held-out.jsonl:2: "), ("skip", 3, "held-out.jsonl: no record fits")]
)
def test_a_held_out_record_that_is_too_long_is_found_before_the_folder_is_claimed(
    on_overflow, long, said, files, tmp_path, capsys
):
    records = list(laboratory.training_records(3, seed=5))
    for number in range(long):
        records[(number + 1) % 3]["question_body"] = "lamp " * 500
    write(tmp_path / "held-out.jsonl", records)
    own = arguments(files, tmp_path / "run", f"--config.data.on_overflow={on_overflow}", held_out=tmp_path / "held-out.jsonl")
    assert said in failure(capsys, own)
    assert not (tmp_path / "run").exists()


def test_the_shape_of_a_model_comes_from_its_checkpoint(files, tmp_path, laboratory_checkpoint):
    config = runpy.run_path(str(files / "config.py"))["get_config"]()
    there = open_checkpoint(str(laboratory_checkpoint)).config
    assert there.hidden_size != config.model.hidden_size
    config.data.length = 1024  # the prompts of its tokenizer are long
    held_out = files / "held-out.jsonl"
    sources = setup.Sources(files / "train.jsonl", held_out, str(laboratory_checkpoint), None, frozenset({"tied_embeddings"}))
    prepared = setup.prepare(config, sources, *setup.check_sources(config, sources))
    assert prepared.model == there
    shape = {field.name: getattr(there, field.name) for field in dataclasses.fields(ModelShape)}
    assert dataclasses.asdict(prepared.config.model) == shape
    assert prepared.identity["model.hidden_size"] == there.hidden_size
    assert config.model.hidden_size == 32  # what was given is as it was
