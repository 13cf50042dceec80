"""A conversion that is killed: nothing that opens is left, and the same one goes on after what was complete."""

import subprocess
import textwrap
from pathlib import Path

import pytest
import torch
import warm_processes
from processes import environment

from judgelm_jax.checkpoints import Checkpoint, hf_writing, open_checkpoint, orbax_store
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.checkpoints.tensor_names import tensor_table
from judgelm_jax.errors import InputError

SIZE = 4000  # bytes of a group of tensors; a shard has three of them

KILLED = """
    import os, sys
    from pathlib import Path
    from orbax.checkpoint import v1 as ocp
    from judgelm_jax.checkpoints import hf_writing, open_checkpoint, orbax_store
    from judgelm_jax.checkpoints.conversion import convert
    folder, to, moment, size = Path(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
    orbax_store._GROUP_BYTES = hf_writing._GROUP_BYTES = size
    source = open_checkpoint(str(folder / "source"))
    read, reads = source.weights.read, []

    def die(*_, **__):
        os._exit(9)

    def counted(names):
        reads.append(names)
        return die() if len(reads) == int(moment) else read(names)

    if moment.isdigit():
        source.weights.read = counted
    elif moment == "saving":  # the files of a group are there, its name is not
        import orbax.checkpoint._src.path.atomicity as atomicity
        save = ocp.partial.save
        def third(*arguments, **named):
            reads.append(0)
            if len(reads) == 3:
                os.rename = os.replace = die
            return save(*arguments, **named)
        ocp.partial.save = third
    elif moment == "finalizing":
        import orbax.checkpoint._src.handlers.base_pytree_checkpoint_handler as handler
        handler.BasePyTreeCheckpointHandler.finalize = die
    else:
        import judgelm_jax.checkpoints.folders as folders
        folders.replace_folder = die
    convert(source, folder / "b", to, shard_bytes=3 * size)
"""


@pytest.fixture
def source(tmp_path: Path, write_checkpoint, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(orbax_store, "_GROUP_BYTES", SIZE)
    monkeypatch.setattr(hf_writing, "_GROUP_BYTES", SIZE)
    write_checkpoint(tmp_path / "source", dtype=torch.bfloat16)
    return open_checkpoint(str(tmp_path / "source"))


def kill(folder: Path, to: str, moment: str) -> None:
    command = warm_processes.command(environment(), textwrap.dedent(KILLED), str(folder), to, moment, str(SIZE))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 9, done.stderr
    assert {path.name for path in folder.iterdir()} == {"source", ".b.partial"}
    for left in [folder / "b", *(path for path in (folder / ".b.partial").rglob("*") if path.is_dir())]:
        if moment != "publishing" or left.parent.name != ".b.partial":
            with pytest.raises(InputError):
                open_checkpoint(str(left))


def names_read(source: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    read, names = source.weights.read, []
    monkeypatch.setattr(source.weights, "read", lambda wanted: names.extend(wanted) or read(wanted))
    return names


def assert_same(source: Checkpoint, target: Path) -> None:
    found = open_checkpoint(str(target)).weights
    assert found.tensors == source.weights.tensors
    for name, tensor in found.read(list(found.tensors)).items():
        assert tensor.tobytes() == source.weights.read([name])[name].tobytes()
    assert sorted(path.name for path in target.parent.iterdir()) == ["b", "source"]


@pytest.mark.parametrize(
    ("to", "moment", "goes_on"),
    [
        ("orbax", "6", True),
        pytest.param("orbax", "saving", True, marks=pytest.mark.slow),
        pytest.param("orbax", "finalizing", False, marks=pytest.mark.slow),  # Orbax has begun to mix the groups
        pytest.param("orbax", "publishing", True, marks=pytest.mark.slow),
        ("hf", "2", True),
        pytest.param("hf", "6", True, marks=pytest.mark.slow),
        pytest.param("hf", "publishing", True, marks=pytest.mark.slow),
    ],
)
def test_the_same_conversion_goes_on(
    tmp_path: Path, source: Checkpoint, monkeypatch: pytest.MonkeyPatch, to: str, moment: str, goes_on: bool
) -> None:
    kill(tmp_path, to, moment)
    names = names_read(source, monkeypatch)
    convert(source, tmp_path / "b", to, shard_bytes=3 * SIZE)
    everything = len(tensor_table(source.config))
    assert len(names) == len(set(names))
    assert (len(names) < everything) == goes_on
    assert (names == []) == (moment == "publishing")
    assert_same(source, tmp_path / "b")


@pytest.mark.slow
def test_it_can_be_killed_again_and_again(tmp_path: Path, source: Checkpoint) -> None:
    for _ in range(3):
        kill(tmp_path, "hf", "3")
    convert(source, tmp_path / "b", "hf", shard_bytes=3 * SIZE)
    assert_same(source, tmp_path / "b")


@pytest.mark.parametrize("change", ["source", *(pytest.param(name, marks=pytest.mark.slow) for name in ("shards", "context"))])
def test_another_conversion_takes_nothing_of_what_was_left(
    tmp_path: Path, source: Checkpoint, write_checkpoint, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    kill(tmp_path, "hf", "6")
    if change == "source":
        write_checkpoint(tmp_path / "source", dtype=torch.bfloat16, seed=1)
    source = open_checkpoint(str(tmp_path / "source"), context=32 if change == "context" else None)
    names = names_read(source, monkeypatch)
    convert(source, tmp_path / "b", "hf", shard_bytes=(2 if change == "shards" else 3) * SIZE)
    assert sorted(names) == sorted(tensor_table(source.config))
    assert_same(source, tmp_path / "b")


@pytest.mark.slow
def test_what_was_written_before_counts_as_room_on_the_disk(
    tmp_path: Path, source: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from judgelm_jax.checkpoints import folders
    from judgelm_jax.checkpoints.tensor_names import stored_bytes

    kill(tmp_path, "hf", "6")
    free = stored_bytes(source.weights, source.config) - 4000
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, free))
    convert(source, tmp_path / "b", "hf", shard_bytes=3 * SIZE)
    assert_same(source, tmp_path / "b")
