"""Whose a run's folder is."""

import json

import pytest

from judgelm_jax.errors import InputError
from judgelm_jax.training.run_folder import METRICS_FILE, RUN_FILE, claimed

OWN = {"training.learning_rate": 1e-5, "data_sha256": "a" * 64}


@pytest.fixture
def tokenizer(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer_config.json").write_text("{}")
    return folder


def claim(output, tokenizer, own=OWN, resume=False):
    with claimed(output, own, tokenizer, resume):
        pass
    return json.loads((output / RUN_FILE).read_text())


def begin(output):
    (output / METRICS_FILE).write_text('{"step": 1, "kind": "train"}\n')


@pytest.mark.parametrize("resume", [False, True])
def test_one_training_at_a_time(tokenizer, tmp_path, resume):
    output = tmp_path / "run"
    with claimed(output, OWN, tokenizer, False):
        begin(output)
        with pytest.raises(InputError, match="another process trains into it; wait for it to end, or stop it"):
            claim(output, tokenizer, resume=resume)
    claim(output, tokenizer, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_without_a_step_may_be_begun_again_by_any(tokenizer, tmp_path, resume):
    output = tmp_path / "run"
    claim(output, tokenizer)
    (output / "checkpoints").mkdir()
    (output / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()
    (output / METRICS_FILE).touch()
    (output / "tokenizer" / "old.json").touch()
    other = OWN | {"training.learning_rate": 2e-5}
    assert claim(output, tokenizer, other, resume) == other
    assert [path.name for path in (output / "tokenizer").iterdir()] == ["tokenizer_config.json"]


@pytest.mark.parametrize("begun", ["metrics", "checkpoint"])
def test_a_run_with_a_step_goes_on_as_it_began_or_is_refused(tokenizer, tmp_path, begun):
    output = tmp_path / "run"
    claim(output, tokenizer)
    if begun == "metrics":
        begin(output)
    else:
        (output / "checkpoints" / "4").mkdir(parents=True)
    with pytest.raises(InputError, match="holds a run already; pass --resume to go on with it"):
        claim(output, tokenizer)
    assert claim(output, tokenizer, resume=True) == OWN
    other = {"training.learning_rate": 2e-5, "data_sha256": "b" * 64, "training.new": True}
    with pytest.raises(InputError) as told:
        claim(output, tokenizer, other, resume=True)
    assert "training.learning_rate is 2e-05 and the run began with 1e-05" in str(told.value)
    assert "--data is that of digest bbbbbbbbbbbb and the run began with that of digest aaaaaaaaaaaa" in str(told.value)
    assert "training.new is true and the run began with unknown" in str(told.value)
    assert json.loads((output / RUN_FILE).read_text()) == OWN


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000])
def test_a_damaged_run_file_is_named(tokenizer, tmp_path, text):
    output = tmp_path / "run"
    claim(output, tokenizer)
    begin(output)
    (output / RUN_FILE).write_text(text)
    with pytest.raises(InputError, match=r"run.json: cannot be read"):
        claim(output, tokenizer, resume=True)


@pytest.mark.parametrize("name", ["thesis.txt", "checkpoints", METRICS_FILE, "model"])
def test_a_folder_of_something_else_is_left_alone(tokenizer, tmp_path, name):
    (tmp_path / "other" / name).mkdir(parents=True)
    with pytest.raises(InputError, match="exists and holds no run; choose another --output"):
        claim(tmp_path / "other", tokenizer, resume=True)
    assert [path.name for path in (tmp_path / "other").iterdir()] == [name]
    (tmp_path / "file").write_text("precious")
    with pytest.raises(InputError, match="exists and holds no run"):
        claim(tmp_path / "file", tokenizer)
