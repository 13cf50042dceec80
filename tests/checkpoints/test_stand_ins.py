"""Files that are not what their name says: each is one line that says what it is and what to do."""

import gzip
import shutil
from pathlib import Path

import pytest

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.errors import InputError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:04ef61cc08360cd193f9056cb10e26525451fd\nsize 1011042\n"
FILES = ["model.safetensors", "config.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"]
OTHERS = ["pytorch_model.bin", "pytorch_model.bin.index.json", "model.safetensors.index.json", "tokenizer.json", "a.gguf"]


def fault_of(place: Path) -> str:
    with pytest.raises(InputError) as raised:
        open_checkpoint(str(place))
    message = str(raised.value)
    assert "\n" not in message
    assert "weights_only" not in message
    return message


@pytest.fixture
def folder(tmp_path: Path, write_checkpoint, laboratory_checkpoint: Path) -> Path:
    write_checkpoint(tmp_path / "a")
    shutil.copy(laboratory_checkpoint / "tokenizer.model", tmp_path / "a")
    return tmp_path / "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "is a Git LFS pointer: run git lfs pull"),
        (gzip.compress(b"weights", mtime=0), "is compressed with gzip: unpack it"),
        (b"\n<!DOCTYPE html><html>Sign in", "is a web page"),
        (b"", "it is empty"),
    ],
    ids=["pointer", "gzip", "page", "empty"],
)
@pytest.mark.parametrize("name", [*FILES, *OTHERS])
def test_every_file_that_is_read_is_looked_at(folder: Path, name: str, content: bytes, message: str) -> None:
    if name in OTHERS and name != "tokenizer.json":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(content)
    fault = fault_of(folder)
    assert fault.startswith(f"{folder / name}: ")
    assert message in fault


def test_a_pointer_among_shards_is_named(tmp_path: Path, write_checkpoint) -> None:
    write_checkpoint(tmp_path, form="sharded safetensors")
    shard = sorted(tmp_path.glob("*-of-*"))[1]
    shard.write_bytes(POINTER)
    assert fault_of(tmp_path).startswith(f"{shard}: is a Git LFS pointer")


def test_a_pointer_that_is_not_needed_is_not_looked_at(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(POINTER)
    (folder / "README.md").write_bytes(POINTER)
    assert open_checkpoint(str(folder)).config.num_layers == 3


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_what_lies_there_compressed_only_is_named(folder: Path, name: str, end: str) -> None:
    (folder / name).rename(folder / f"{name}{end}")
    assert fault_of(folder).startswith(f"{folder / name}{end}: is compressed: unpack it to {name}")
