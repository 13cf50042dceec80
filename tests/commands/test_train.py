"""The command as a user runs it: to its end, killed and gone on with, and with bad input."""

import json
import random
import shutil
import signal
import sys
import time

import numpy as np
import peft
import pytest
import torch
import transformers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_command import arguments, ended, losses, start, steps_done, wait_for

from judgelm_jax import Judge
from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.commands import train
from judgelm_jax.commands.command_line import run
from judgelm_jax.data.held_out import sample
from judgelm_jax.data.training_file import check_training_file
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.model import decoder
from judgelm_jax.records.json_lines import dump_line


def test_a_run_leaves_what_it_says(files, whole):
    output, out = whole
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    summary = json.loads((files / "summary.json").read_text())
    assert [line["step"] for line in steps] == list(range(1, summary["steps"] + 1))
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.5
    assert summary["loss"] == steps[-1]["loss"]
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    assert [line["step"] for line in evaluations] == sorted({*range(6, summary["steps"], 6), summary["steps"]})
    assert evaluations[-1]["loss"] < evaluations[0]["loss"]
    assert len([line for line in lines if line["kind"] == "epoch"]) == 2
    assert all(line["tokens_per_second"] > 0 and line["memory_bytes"] > 1e6 for line in steps)
    assert "trained " in out
    assert "held out " in out
    events = EventAccumulator(str(output / "tensorboard")).Reload()
    told = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert [step for step, _ in told] == [line["step"] for line in steps]
    np.testing.assert_allclose([value for _, value in told], [line["loss"] for line in steps], rtol=1e-6)


def test_what_it_leaves_judges_and_loads_in_transformers(files, whole, tmp_path, one_device):
    output, _ = whole
    judge = Judge.load(str(output / "model"), one_device, JudgeConfig(dtype="float32"))
    assert judge.compare("Which colour is the lamp?", "The lamp is red.", "Blue.").scores is not None
    checkpoint = open_checkpoint(str(output / "model"))
    convert(checkpoint, tmp_path / "hf", "hf")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf").eval()
    tokens = np.random.default_rng(0).integers(3, 200, (2, 40))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(decoder.logits(checkpoint.load(None, "float32"), checkpoint.config, tokens), expected, atol=1e-4)


def test_the_held_out_loss_is_that_of_transformers(files, whole, tmp_path):
    output, _ = whole
    steps = sorted(int(path.name) for path in (output / "checkpoints").iterdir())
    convert(open_checkpoint(str(output / "checkpoints" / str(steps[-1]))), tmp_path / "hf", "hf")
    model = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf").eval()
    from judgelm_jax.prompts import prompts
    from judgelm_jax.tokens.tokenization import load_tokenizer

    tokenizer = load_tokenizer(output / "tokenizer")
    nll = count = 0
    held_out = sample(check_training_file(files / "held-out.jsonl"), 8, seed=0)
    for number in range(8):
        row = held_out[number]
        answers = [row["answer1_body"], row["answer2_body"]]
        prompt = prompts.render("pair", row["question_body"], answers, row["reference"]["text"])
        ids = [tokenizer.bos_id, *tokenizer.encode(prompt + row["text_w_reference"]), tokenizer.eos_ids[0]]
        begin = 1 + len(tokenizer.encode(prompt))
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, begin - 1 : -1]
        nll += float(torch.nn.functional.cross_entropy(logits, torch.tensor(ids[begin:]), reduction="sum"))
        count += len(ids) - begin
    told = [line for line in losses(output) if line["kind"] == "evaluation"][-1]
    assert told["step"] == steps[-1]
    assert told["loss"] == pytest.approx(nll / count, rel=1e-4)


@pytest.mark.parametrize("way", ["SIGKILL", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGINT"))])
def test_a_run_that_was_stopped_ends_as_if_it_had_not(way, files, whole, tmp_path):
    output = tmp_path / "run"
    process = start(arguments(files, output))
    wait_for(lambda: steps_done(output) >= 5 and (output / "checkpoints" / "4").exists(), process)
    process.send_signal(getattr(signal, way))
    code, _, err = ended(process)
    assert code == {"SIGKILL": -signal.SIGKILL, "SIGTERM": 143, "SIGINT": 130}[way]
    if way != "SIGKILL":
        assert "which is saved; run again with --resume to go on" in err
        assert "Traceback" not in err
    code, out, err = ended(start(arguments(files, output, "--resume")))
    assert code == 0, err
    assert "of them before" in out
    assert losses(output) == losses(whole[0])  # every bit of every loss
    tokens = np.array([[3, 4, 5, 6]])
    ours, theirs = (open_checkpoint(str(folder / "model")) for folder in (output, whole[0]))
    logits = [decoder.logits(model.load(None, "float32"), model.config, tokens) for model in (ours, theirs)]
    np.testing.assert_array_equal(*logits)


@pytest.mark.slow
def test_kills_at_random_moments(files, whole, tmp_path):
    """SIGKILL again and again, in steps, saves, evaluations, the export, until the run gets through."""
    rng = random.Random(0)
    output, kills = tmp_path / "run", 0
    while True:
        begun = steps_done(output)
        process = start(arguments(files, output, "--resume"))
        if kills < 12:
            if kills % 2:  # while a save is under way
                wait_for(lambda: list((output / "checkpoints").glob("*tmp*")), process)
            else:
                wait_for(lambda begun=begun: steps_done(output) not in (0, begun), process)
                time.sleep(rng.random() * 0.5)
            process.kill()
        code, _, err = ended(process)
        if code == 0:
            break
        assert code == -signal.SIGKILL, err
        kills += 1
    assert kills == 12
    assert losses(output) == losses(whole[0])


@pytest.mark.slow
def test_the_number_of_devices_may_change_on_the_way(files, whole, tmp_path):
    output = tmp_path / "run"
    process = start(arguments(files, output), devices=1)
    wait_for(lambda: (output / "checkpoints" / "4").exists(), process)
    process.kill()
    assert ended(process)[0] == -signal.SIGKILL
    mesh = "--config.computation.mesh=data:2,fsdp:2,tensor:2"
    code, _, err = ended(start(arguments(files, output, "--resume", mesh), devices=8))
    assert code == 0, err
    for ours, theirs in zip(losses(output), losses(whole[0]), strict=True):
        assert ours["step"] == theirs["step"]
        if ours["kind"] == "train":
            assert ours["loss"] == pytest.approx(theirs["loss"], rel=2e-4)


def failure(capsys, arguments):
    code = run(train.main, train.FLAGS, "train", arguments)
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.count("\n") == 1
    assert err.startswith("judgelm-train: ")
    return err


def without(arguments, flag):
    return [argument for argument in arguments if not argument.startswith(flag)]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--config.training.batch=9"], "batch=9: does not divide over the 8 devices"),
        (["--config.computation.mesh=data:3"], "does not fit 8 devices"),
        (["--config.computation.mesh=data:1,tensor:8"], "'kv_heads' over tensor = 8 devices, which does not divide its size 2"),
        (["--config.data.swap_augmentation=1.5"], "--config.data.swap_augmentation=1.5: must be from 0 to 1"),
        (["--config.computation.remat=half"], "must be one of auto, none, dots, full"),
        (["--config.training.learning=1"], "training has no field 'learning'; did you mean learning_rate?"),
        (["--config.training.batch=many"], "--config.training.batch=many: must be a whole number"),
        (["--config.model.num_heads=0"], "--config.model.num_heads=0: must be from 1"),
        (["--config.training.epsilon=0"], "--config.training.epsilon=0"),
        (["--config.lora.rank=4"], "adapters need a trained model; give --init_from"),
        (["--config.data.length=1024"], "must be from 16 to 256"),
        (["--processes=2"], "go together"),
        (["--config.model.num_heads=5"], "does not divide the hidden_size 32"),
    ],
)
def test_bad_settings_are_named(more, said, files, tmp_path, capsys):
    assert said in failure(capsys, arguments(files, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("x = 1\ndef get_config(:\n", ":2: SyntaxError: invalid syntax; fix this config"),
        ("def get_config():\n    return 1 / 0\n", ":2: ZeroDivisionError: division by zero; fix this config"),
        ("import nowhere\n", ":1: ModuleNotFoundError: No module named 'nowhere'; fix this config"),
        ("x = 1\n", ": has no function get_config; define one that returns the config, as the files of configs/ do"),
    ],
)
def test_a_config_that_fails_is_named_with_its_line(program, said, files, tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # ml_collections loads one into another
    config = tmp_path / "wrong.py"
    config.write_text(program)
    own = without(arguments(files, tmp_path / "run"), "--config")
    for given in ([f"--config={config}"], ["--config", str(config)]):
        assert failure(capsys, [*own, *given]) == f"judgelm-train: {config}{said}\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": [11, 3]}, "train.jsonl:2: "),
        ({"text": "3 4\nx"}, "train.jsonl:2: "),
        ({"question_body": 7}, "train.jsonl:2: "),
        ({"answer2_body": None}, "train.jsonl:2: "),
    ],
)
def test_bad_rows_are_named(change, said, files, tmp_path, capsys):
    rows = [json.loads(line) for line in (files / "train.jsonl").read_text().splitlines()[:3]]
    rows[1] |= change
    (tmp_path / "train.jsonl").write_text("".join(dump_line(row) + "\n" for row in rows))
    own = without(arguments(files, tmp_path / "run"), "--data")
    assert said in failure(capsys, [*own, f"--data={tmp_path / 'train.jsonl'}"])


def test_another_model_or_another_run_is_refused(files, whole, tmp_path, capsys, laboratory_checkpoint):
    own = without(arguments(files, tmp_path / "run"), "--tokenizer")
    there = open_checkpoint(str(laboratory_checkpoint)).config.hidden_size
    said = failure(capsys, [*own, f"--init_from={laboratory_checkpoint}", "--config.model.hidden_size=32"])
    assert f"--config.model.hidden_size=32: {laboratory_checkpoint} has {there}; leave it out" in said
    assert "give either --init_from" in failure(capsys, own)
    fine = arguments(files, tmp_path / "run")
    assert "choose another --output" in failure(capsys, arguments(files, tmp_path / "r[1]"))
    same = [*without(fine, "--evaluation"), f"--evaluation={files / 'train.jsonl'}"]
    assert "is the training file; hold other rows out" in failure(capsys, same)
    missing = [*without(fine, "--config"), f"--config={tmp_path / 'none.py'}"]
    assert "there is no such file" in failure(capsys, missing)
    shutil.copytree(whole[0], tmp_path / "copy")
    again = arguments(files, tmp_path / "copy")
    assert "holds a run already; pass --resume" in failure(capsys, again)
    changed = [*again, "--resume", "--config.training.learning_rate=0.5"]
    said = failure(capsys, changed)
    assert "training.learning_rate is 0.5 and the run began with 0.003; give what it began with" in said
    before = (tmp_path / "copy" / "metrics.jsonl").read_text()
    assert before == (whole[0] / "metrics.jsonl").read_text()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    assert "exists and holds no run" in failure(capsys, arguments(files, tmp_path / "full"))


def test_numbers_that_are_not_finite_end_the_run_with_the_ids_of_the_batch(files, tmp_path, capsys):
    more = ["--config.training.learning_rate=9.9", "--config.training.skipped_in_a_row=2", "--config.training.warmup=0"]
    more += ["--config.training.weight_decay=9.9"]  # each update multiplies every matrix by −97
    own = arguments(files, tmp_path / "run", *more)
    assert run(train.main, train.FLAGS, "train", own) == 2
    *before, said = capsys.readouterr().err.splitlines()
    assert sum("the step is skipped" in line for line in before) == 2
    assert said.startswith("judgelm-train: ")
    assert "not finite in 2 steps in a row" in said
    assert "look at the records of the batch (" in said
    skipped = [line["skipped"] for line in losses(tmp_path / "run") if line["kind"] == "train"]
    assert skipped[-2:] == [1, 2]


def test_adapters_train_alone_and_load_in_peft(files, whole, tmp_path, capsys):
    convert(open_checkpoint(str(whole[0] / "model")), tmp_path / "base", "hf")
    own = without(arguments(files, tmp_path / "run"), "--tokenizer")
    more = ["--config.lora.rank=4", "--config.lora.targets=q_proj,down_proj", "--config.training.epochs=1"]
    assert run(train.main, train.FLAGS, "train", [*own, f"--init_from={tmp_path / 'base'}", *more]) == 0
    evaluations = [line for line in losses(tmp_path / "run") if line["kind"] == "evaluation"]
    assert evaluations[-1]["loss"] < evaluations[0]["loss"]
    base = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base")
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    tokens = np.random.default_rng(0).integers(3, 200, (2, 40))
    with torch.no_grad():
        expected = adapted(torch.tensor(tokens)).logits.numpy()
    merged = open_checkpoint(str(tmp_path / "run" / "model"))
    ours = decoder.logits(merged.load(None, "float32"), merged.config, tokens)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    before = open_checkpoint(str(tmp_path / "base")).load(None, "float32")
    assert np.abs(ours - decoder.logits(before, merged.config, tokens)).max() > 1e-2
    saved = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file())
    weights = (tmp_path / "base" / "model.safetensors").stat().st_size
    assert saved < 2 * weights  # two checkpoints of everything would be six times the weights


def test_a_disk_without_room_is_refused_before_the_first_step(files, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    assert "checkpoints and the next one need" in failure(capsys, arguments(files, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
