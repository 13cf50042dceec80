"""Fingerprints: one byte anywhere in the weights makes another, in every form of a checkpoint."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from judgelm_jax.checkpoints import fingerprints, open_checkpoint
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.checkpoints.training_run import TrainingCheckpoints
from judgelm_jax.devices import runtime
from judgelm_jax.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fingerprints, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def flip(file: Path, offset: int) -> None:
    """Changes one byte, and puts size and modification time back as they were."""
    before = file.stat()
    with file.open("r+b") as opened:
        opened.seek(offset)
        byte = opened.read(1)[0]
        opened.seek(offset)
        opened.write(bytes([byte ^ 1]))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def made(folder: Path, form: str, write_checkpoint) -> tuple[Path, Path]:
    """A checkpoint of a form and the file that holds most of its weights."""
    write_checkpoint(
        folder / "hf", dtype=torch.float16, form=form if "orbax" not in form and form != "training" else "safetensors"
    )
    place = folder / "hf"
    if form == "orbax":
        convert(open_checkpoint(str(place)), folder / "orbax", "orbax")
        place = folder / "orbax"
    if form == "training":
        source = open_checkpoint(str(place))
        about = {"hf_config": source.hf_config, "export_dtype": "float32", "lora": None, "init_from": None}
        saved = TrainingCheckpoints(folder / "run/checkpoints", 1, False, about | {"init_fingerprint": None})
        saved.save(1, {"params": source.load(None, "float32")}, {"next_index": 1})
        saved.close()
        place = folder / "run/checkpoints/1"
    return place, max((file for file in place.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)


@pytest.mark.parametrize("form", ["safetensors", "sharded safetensors", "bin", "legacy bin", "orbax", "training"])
def test_one_byte_in_the_middle_makes_another_fingerprint(tmp_path: Path, write_checkpoint, form: str) -> None:
    place, file = made(tmp_path, form, write_checkpoint)
    found = [open_checkpoint(str(place)).fingerprint]
    assert open_checkpoint(str(place)).fingerprint == found[0]
    for share in (0.45, 0.55, 0.65):
        offset = int(file.stat().st_size * share)
        flip(file, offset)
        # About one byte in a hundred of an Orbax file lies in an index with a checksum: a refusal tells it, too.
        with contextlib.suppress(InputError):
            found.append(open_checkpoint(str(place)).fingerprint)
            continue
        assert form in ("orbax", "training")
        flip(file, offset)
    assert len(set(found)) == len(found)


def test_a_copy_elsewhere_has_the_same_fingerprint(tmp_path: Path, write_checkpoint) -> None:
    for form in ("safetensors", "orbax"):
        (tmp_path / form).mkdir()
        place, _ = made(tmp_path / form, form, write_checkpoint)
        shutil.copytree(place, tmp_path / f"copy of {form}")
        assert open_checkpoint(str(tmp_path / f"copy of {form}")).fingerprint == open_checkpoint(str(place)).fingerprint


def test_files_are_read_once_and_again_when_they_change(
    tmp_path: Path, write_checkpoint, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    monkeypatch.setattr(fingerprints, "_SETTLED_SECONDS", 0.0)
    write_checkpoint(tmp_path / "a")
    read: list[str] = []
    compute = fingerprints._of_content
    monkeypatch.setattr(fingerprints, "_of_content", lambda file: read.append(file.name) or compute(file))
    first = open_checkpoint(str(tmp_path / "a")).fingerprint
    assert sorted(read) == ["config.json", "model.safetensors"]
    assert open_checkpoint(str(tmp_path / "a")).fingerprint == first
    assert len(read) == 2
    flip(tmp_path / "a/model.safetensors", 5000)
    assert open_checkpoint(str(tmp_path / "a")).fingerprint != first
    assert read[2:] == ["model.safetensors"]
    for damage in ("{", "[1]", '{"a": 1}'):
        (own_cache / "fingerprints.json").write_text(damage)
        assert open_checkpoint(str(tmp_path / "a")).fingerprint != first
        assert isinstance(json.loads((own_cache / "fingerprints.json").read_text()), dict)


def test_a_file_that_changed_just_now_is_not_kept(tmp_path: Path, write_checkpoint, own_cache: Path) -> None:
    write_checkpoint(tmp_path / "a")
    assert open_checkpoint(str(tmp_path / "a")).fingerprint
    assert not own_cache.exists()


def test_without_a_cache_it_is_computed_each_time(tmp_path: Path, write_checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "a")
    kept = open_checkpoint(str(tmp_path / "a")).fingerprint
    monkeypatch.setattr(fingerprints, "cache_folder", lambda: None)
    assert open_checkpoint(str(tmp_path / "a")).fingerprint == kept


def test_parts_of_a_large_file_all_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_PART_BYTES", 1000)
    file = tmp_path / "a"
    content = np.random.default_rng(0).integers(0, 256, 10_500, dtype=np.uint8)
    found = set()
    for change in (None, 0, 999, 1000, 5_432, 10_499):
        changed = content.copy()
        if change is not None:
            changed[change] ^= 1
        file.write_bytes(changed.tobytes())
        found.add(fingerprints.of_files(tmp_path, [file]))
    file.write_bytes(content[:-1].tobytes())
    found.add(fingerprints.of_files(tmp_path, [file]))
    assert len(found) == 7


@pytest.mark.parametrize("place", ["file", "no home"])
def test_a_cache_that_cannot_be_written_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, place: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    if place == "no home":
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    before = jax.config.jax_compilation_cache_dir
    runtime.cache_folder.cache_clear()
    runtime.say_once.cache_clear()
    try:
        for _ in range(2):
            assert runtime.cache_folder() is None
            runtime.enable_compilation_cache()
        (line,) = capsys.readouterr().err.splitlines()
        assert "compiled programs and fingerprints are not kept; set XDG_CACHE_HOME" in line
        assert jax.config.jax_compilation_cache_dir == before
    finally:
        runtime.cache_folder.cache_clear()


@pytest.mark.parametrize(("said", "expected"), [(None, 0.2), ("7", 7.0)])
def test_the_least_time_of_compiling_that_is_kept_may_be_said(
    monkeypatch: pytest.MonkeyPatch, said: str | None, expected: float
) -> None:
    name, before = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", jax.config.jax_persistent_cache_min_compile_time_secs
    monkeypatch.delenv(name, raising=False)
    if said is not None:
        monkeypatch.setenv(name, said)
    jax.config.update(name.lower(), float(said or 3))  # JAX reads its variables when it is imported
    try:
        runtime.enable_compilation_cache()
        assert jax.config.jax_persistent_cache_min_compile_time_secs == expected
    finally:
        jax.config.update(name.lower(), before)
