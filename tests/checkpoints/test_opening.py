"""Which model a name means, and what tells one checkpoint from another."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import transformers
from safetensors.torch import load_file, save_file

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.errors import InputError


def test_a_folder_that_is_not_there_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    for name in (str(tmp_path / "nowhere"), "./org/name", "../name", "a b/c", "org/name/more", ""):
        with pytest.raises(InputError, match=r"no such folder|no such file|no model is named"):
            open_checkpoint(name)
    (tmp_path / "file").write_text("{}")
    with pytest.raises(InputError, match="file: is neither a folder nor a GGUF"):
        open_checkpoint(str(tmp_path / "file"))


def test_the_folder_of_a_training_names_its_model(tmp_path: Path) -> None:
    (tmp_path / "run/model/state").mkdir(parents=True)
    with pytest.raises(InputError, match=f"is the folder of a training; its model is {tmp_path}/run/model"):
        open_checkpoint(str(tmp_path / "run"))


@pytest.mark.parametrize("name", ["run", "run/model"])
def test_a_training_that_has_not_ended_names_its_checkpoints(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    with pytest.raises(InputError, match=f"{name}: .*the training has not ended: .*{tmp_path}/run/checkpoints$"):
        open_checkpoint(str(tmp_path / name))


def test_a_model_beside_a_file_of_that_name_is_opened(tmp_path: Path, write_checkpoint) -> None:
    write_checkpoint(tmp_path / "hf")
    (tmp_path / "hf/run.json").write_text("{}")
    assert open_checkpoint(str(tmp_path / "hf")).config.num_layers > 0


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_a_hub_id_is_downloaded_without_a_second_form_of_the_weights(
    tmp_path: Path, write_checkpoint, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    write_checkpoint(tmp_path / "snapshot", form=form)
    asked: list[str] = []

    def download(repository: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        assert (repository, ignore_patterns) == ("org/judge-7b.v1", ["*/*"])
        asked.extend(allow_patterns)
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert open_checkpoint("org/judge-7b.v1").folder == tmp_path / "snapshot"
    assert ("pytorch_model*.bin" in asked) == (form == "bin")
    assert {"*.json", "tokenizer.model", "model*.safetensors"} <= set(asked)


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot find it on the hub\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match=r"^org/name: no such folder here, and no download .*on the hub\); check") as raised:
        open_checkpoint("org/name")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_cache_that_cannot_be_written_is_told_from_a_hub_that_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise OSError(number, os.strerror(number), "/cache/models--org--name")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match=r"^org/name: the hub's cache cannot keep it \(.*/cache/.*set HF_HOME to a folder"):
        open_checkpoint("org/name")


def test_an_unsupported_config_is_refused_by_name(tmp_path: Path, write_checkpoint) -> None:
    write_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"attention_bias": True}))
    with pytest.raises(InputError, match=r"config\.json: attention_bias"):
        open_checkpoint(str(tmp_path))


def test_the_fingerprint_changes_with_anything_that_changes_verdicts(
    tmp_path: Path, write_checkpoint, laboratory_checkpoint: Path
) -> None:
    def fingerprints(change: Any) -> list[str]:
        """Of a changed copy, as it is and converted."""
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.rmtree(tmp_path / "orbax", ignore_errors=True)
        shutil.copytree(tmp_path / "a", tmp_path / "copy")
        change(tmp_path / "copy")
        checkpoint = open_checkpoint(str(tmp_path / "copy"))
        convert(checkpoint, tmp_path / "orbax", "orbax")
        return [checkpoint.fingerprint, open_checkpoint(str(tmp_path / "orbax")).fingerprint]

    def one_weight(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] += 1
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    def config(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {"max_position_embeddings": 1024}))

    def tokenizer(folder: Path) -> None:
        (folder / "tokenizer_config.json").write_text('{"add_bos_token": false}')

    shutil.copytree(laboratory_checkpoint, tmp_path / "a")
    (tmp_path / "a/tokenizer_config.json").unlink()
    nothing = fingerprints(lambda _: None)
    assert fingerprints(lambda folder: (folder / "README.md").write_text("words")) == nothing
    for number in range(2):
        different = {fingerprints(change)[number] for change in (one_weight, config, tokenizer)}
        assert len(different | {nothing[number]}) == 4


def test_text_ends_where_the_generation_config_says_as_in_transformers(tmp_path: Path, write_checkpoint) -> None:
    write_checkpoint(tmp_path / "hf")
    generation = {"eos_token_id": [7, 9], "bos_token_id": 1}
    (tmp_path / "hf" / "generation_config.json").write_text(json.dumps(generation))
    theirs = transformers.GenerationConfig.from_pretrained(tmp_path / "hf")
    assert open_checkpoint(str(tmp_path / "hf")).config.eos_ids == tuple(theirs.eos_token_id)
    convert(open_checkpoint(str(tmp_path / "hf")), tmp_path / "orbax", "orbax")
    assert open_checkpoint(str(tmp_path / "orbax")).config.eos_ids == (7, 9)
    (tmp_path / "hf" / "generation_config.json").unlink()
    assert open_checkpoint(str(tmp_path / "hf")).config.eos_ids == (2,)


@pytest.mark.parametrize("form", ["hf", "orbax"])
def test_another_context_is_kept_and_tells_checkpoints_apart(tmp_path: Path, write_checkpoint, form: str) -> None:
    write_checkpoint(tmp_path / "hf")
    if form == "orbax":
        convert(open_checkpoint(str(tmp_path / "hf")), tmp_path / "orbax", "orbax")
    plain, longer = open_checkpoint(str(tmp_path / form)), open_checkpoint(str(tmp_path / form), context=640)
    assert (plain.config.context, longer.config.context) == (64, 640)
    assert plain.fingerprint != longer.fingerprint
    for to in ("orbax", "hf"):
        convert(longer, tmp_path / f"longer-{to}", to)
        assert open_checkpoint(str(tmp_path / f"longer-{to}")).config == longer.config


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"eos_token_id": "</s>"}',
        '{"eos_token_id": [true]}',
        '{"eos_token_id": 2.0}',
        '{"eos_token_id": 512}',
        '{"eos_token_id": NaN}',
        '{"a": ' + "[" * 5000 + "]" * 5000 + "}",
        "\ufeff{}",
    ],
)
def test_a_broken_generation_config_is_named(tmp_path: Path, write_checkpoint, text: str) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(InputError, match=r"generation_config\.json"):
        open_checkpoint(str(tmp_path))
