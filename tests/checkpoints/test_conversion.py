"""Conversion both ways: no bit changes, the result works elsewhere, and a target is whole or absent."""

import errno
import json
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from judgelm_jax.checkpoints import Checkpoint, conversion, open_checkpoint, orbax_store
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.errors import InputError

CASES = [
    (torch.float32, "safetensors", False),
    (torch.float16, "sharded safetensors", True),
    (torch.bfloat16, "sharded bin", False),
    (torch.bfloat16, "legacy bin", True),
    (torch.float16, "bin", False),
]


@pytest.fixture
def source(tmp_path: Path, write_checkpoint, laboratory_checkpoint: Path) -> Checkpoint:
    write_checkpoint(tmp_path / "source", dtype=torch.bfloat16)
    shutil.copy(laboratory_checkpoint / "tokenizer.model", tmp_path / "source")
    return open_checkpoint(str(tmp_path / "source"))


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(("dtype", "form", "tied"), CASES, ids=str)
def test_import_export_import_changes_no_bit(
    tmp_path: Path, write_checkpoint, dtype: torch.dtype, form: str, tied: bool
) -> None:
    expected = write_checkpoint(tmp_path / "a", dtype=dtype, form=form, tied=tied)
    convert(open_checkpoint(str(tmp_path / "a")), tmp_path / "b", "orbax")
    convert(open_checkpoint(str(tmp_path / "b")), tmp_path / "c", "hf")
    convert(open_checkpoint(str(tmp_path / "c")), tmp_path / "d", "orbax")

    exported = load_file(tmp_path / "c/model.safetensors")
    assert exported.keys() == expected.keys()
    for name, tensor in expected.items():
        assert exported[name].dtype == dtype
        assert torch.equal(exported[name].view(torch.uint8), tensor.contiguous().view(torch.uint8))
    first, second = (open_checkpoint(str(tmp_path / name)) for name in "bd")
    assert first.fingerprint == second.fingerprint
    assert first.weights.tensors == second.weights.tensors
    assert first.hf_config == second.hf_config == json.loads((tmp_path / "a/config.json").read_text())
    names = list(expected)
    for name, tensor in second.weights.read(names).items():
        assert tensor.tobytes() == first.weights.read([name])[name].tobytes()


@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_an_export_and_computes_the_same(tmp_path: Path, write_checkpoint, tied: bool) -> None:
    write_checkpoint(tmp_path / "a", tied=tied)
    convert(open_checkpoint(str(tmp_path / "a")), tmp_path / "b", "orbax")
    convert(open_checkpoint(str(tmp_path / "b")), tmp_path / "c", "hf", shard_bytes=20_000)
    assert len(list(tmp_path.glob("c/model-*-of-*.safetensors"))) > 1
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before, after = (transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name)(ids).logits for name in ("a", "c"))
    assert torch.equal(before, after)


def test_an_export_has_the_form_of_a_published_checkpoint(tmp_path: Path, source: Checkpoint) -> None:
    convert(source, tmp_path / "b", "hf", shard_bytes=40_000)
    index = json.loads((tmp_path / "b/model.safetensors.index.json").read_text())
    shards = sorted((tmp_path / "b").glob("*.safetensors"))
    assert [shard.name for shard in shards] == [
        f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
    ]
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    inside = {name: shard.name for shard in shards for name in load_file(shard)}
    assert index["weight_map"] == inside
    sizes = [sum(tensor.nbytes for tensor in load_file(shard).values()) for shard in shards]
    assert index["metadata"]["total_size"] == sum(sizes)
    assert max(sizes) <= 40_000
    for shard in shards:
        header = shard.read_bytes()[8:]
        assert b'"__metadata__":{"format":"pt"}' in header
        assert stat.S_IMODE(shard.stat().st_mode) == stat.S_IMODE((tmp_path / "b/config.json").stat().st_mode)
    assert (tmp_path / "b/tokenizer.model").read_bytes() == (source.tokenizer_folder / "tokenizer.model").read_bytes()
    assert (tmp_path / "b/generation_config.json").is_file()


def test_a_converted_folder_holds_one_leaf_per_tensor_and_layer_in_its_stored_dtype(tmp_path: Path, source: Checkpoint) -> None:
    from orbax.checkpoint import v1 as ocp

    convert(source, tmp_path / "b", "orbax")
    metadata = ocp.metadata(tmp_path / "b")
    assert metadata.custom_metadata["layout"] == "layers"
    assert sorted(metadata.metadata["layers"]) == ["0", "1", "2"]
    leaf = metadata.metadata["layers"]["1"]["self_attn"]["k_proj"]["weight"]
    assert (leaf.shape, leaf.dtype.name) == ((16, 32), "bfloat16")
    loaded = ocp.load(tmp_path / "b")
    expected = load_file(tmp_path / "source/model.safetensors")["lm_head.weight"]
    assert loaded["lm_head"]["weight"].tobytes() == expected.view(torch.uint8).numpy().tobytes()


def test_groups_of_any_size_give_the_same_checkpoint(
    tmp_path: Path, source: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, tmp_path / "whole", "orbax")
    monkeypatch.setattr(orbax_store, "_GROUP_BYTES", 4000)
    monkeypatch.setattr(orbax_store, "_READ_BYTES", 1000)
    monkeypatch.setattr(orbax_store, "_CHUNK_BYTES", 500)
    convert(source, tmp_path / "pieces", "orbax")
    whole, pieces = open_checkpoint(str(tmp_path / "whole")), open_checkpoint(str(tmp_path / "pieces"))
    assert whole.fingerprint == pieces.fingerprint
    names = list(whole.weights.tensors)
    for name, tensor in pieces.weights.read(names).items():
        np.testing.assert_array_equal(tensor.view(np.uint16), whole.weights.read([name])[name].view(np.uint16))


@pytest.mark.parametrize("to", ["orbax", "hf"])
def test_an_existing_target_is_kept_unless_told_otherwise(tmp_path: Path, source: Checkpoint, to: str) -> None:
    convert(source, tmp_path / "b", "orbax")
    with pytest.raises(InputError, match="exists already"):
        convert(source, tmp_path / "b", to)
    assert orbax_store.is_store(tmp_path / "b")
    convert(source, tmp_path / "b", to, overwrite=True)
    assert orbax_store.is_store(tmp_path / "b") == (to == "orbax")
    assert open_checkpoint(str(tmp_path / "b")).weights.tensors == source.weights.tensors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "source"]


def test_overwriting_spares_what_is_no_checkpoint(tmp_path: Path, source: Checkpoint) -> None:
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "config.json").write_text("{}")
    (precious / "chapter.txt").write_text("words")
    file = tmp_path / "file"
    file.write_text("words")
    for target in (precious, file):
        with pytest.raises(InputError, match="is no checkpoint, so it is not overwritten"):
            convert(source, target, "orbax", overwrite=True)
    assert (precious / "chapter.txt").read_text() == file.read_text() == "words"


def test_source_and_target_may_not_lie_in_each_other(tmp_path: Path, source: Checkpoint) -> None:
    for target in (tmp_path / "source", tmp_path / "source/inside", tmp_path):
        with pytest.raises(InputError, match=r"the source .* lies there"):
            convert(source, target, "hf", overwrite=True)
    assert open_checkpoint(str(tmp_path / "source")).weights.tensors == source.weights.tensors


def test_a_path_under_which_orbax_loses_data_is_refused(tmp_path: Path, source: Checkpoint) -> None:
    for name in ("a[b]/c", "a/c*"):
        with pytest.raises(InputError, match="choose another target"):
            convert(source, tmp_path / name, "orbax")
    convert(source, tmp_path / "a[b]/c", "hf")
    for target in (tmp_path / "a b/ü", tmp_path / "a[b]/c"):
        if not target.exists():
            convert(source, target, "orbax")
        assert open_checkpoint(str(target)).weights.tensors == source.weights.tensors


def test_tensors_that_orbax_loses_are_noticed(tmp_path: Path, source: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    save = orbax_store.ocp.partial.save

    def forgetful_save(path: Path, tree: dict, **about: object) -> None:
        save(path, {key: node for key, node in tree.items() if key != "norm"}, **about)

    monkeypatch.setattr(orbax_store.ocp.partial, "save", forgetful_save)
    with pytest.raises(InputError, match="Orbax lost tensors"):
        convert(source, tmp_path / "b", "orbax")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("to", ["orbax", "hf"])
@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=["full", "stopped"]
)
def test_what_fails_half_way_leaves_nothing(
    tmp_path: Path, source: Checkpoint, monkeypatch: pytest.MonkeyPatch, to: str, error: BaseException
) -> None:
    reads = []
    read = source.weights.read

    def failing_read(names: list[str]) -> dict[str, np.ndarray]:
        reads.append(names)
        if len(reads) == 3:
            raise error
        return read(names)

    monkeypatch.setattr(orbax_store, "_GROUP_BYTES", 4000)
    monkeypatch.setattr(source.weights, "read", failing_read)
    with pytest.raises((InputError, KeyboardInterrupt)) as raised:
        convert(source, tmp_path / "b", to, shard_bytes=4000)
    if isinstance(error, OSError):
        assert str(raised.value).startswith(f"{tmp_path / 'b'}: the disk is full")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_written(
    tmp_path: Path, source: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 10))
    monkeypatch.setattr(conversion, "write_hf", lambda *_, **__: pytest.fail("wrote"))
    with pytest.raises(InputError, match=r"the disk is full .*0 MB are free.*; free space"):
        convert(source, tmp_path / "b", "hf")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_write_that_the_system_refuses_ends_in_one_line(tmp_path: Path, source: Checkpoint) -> None:
    code = """
        import resource, sys
        from judgelm_jax.commands.command_line import run
        from judgelm_jax.commands.convert import FLAGS, main
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        codes = []
        for to in ("orbax", "hf"):
            codes.append(run(main, FLAGS, "convert", [f"--source={sys.argv[1]}", f"--target={sys.argv[2]}", f"--to={to}"]))
        print(codes)
    """
    done = run_python(code, tmp_path / "source", tmp_path / "b")
    assert done.stdout.splitlines()[-1:] == ["[2, 2]"]
    lines = done.stderr.splitlines()
    assert len(lines) == 2, done.stderr
    assert all(f"judgelm-convert: {tmp_path / 'b'}: could not be written" in line for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_damaged_converted_folder_is_named_in_one_line(tmp_path: Path, source: Checkpoint) -> None:
    convert(source, tmp_path / "b", "orbax")
    data = max((tmp_path / "b/state").rglob("d/*"), key=lambda path: path.stat().st_size)
    data.unlink()
    code = """
        import sys
        from judgelm_jax.commands.command_line import run
        from judgelm_jax.commands.convert import FLAGS, main
        sys.exit(run(main, FLAGS, "convert", [f"--source={sys.argv[1]}", f"--target={sys.argv[2]}", "--to=hf"]))
    """
    done = run_python(code, tmp_path / "b", tmp_path / "c")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"judgelm-convert: {tmp_path / 'b'}: a broken Orbax directory")
    assert not (tmp_path / "c").exists()


def test_an_orbax_checkpoint_of_another_program_is_refused(tmp_path: Path) -> None:
    from orbax.checkpoint import v1 as ocp

    ocp.save(tmp_path / "b", {"weights": np.zeros(3)})
    with pytest.raises(InputError, match="not one that judgelm-convert wrote"):
        open_checkpoint(str(tmp_path / "b"))


@pytest.mark.slow
def test_conversion_holds_a_group_or_a_shard_in_memory_not_the_model(tmp_path: Path) -> None:
    code = """
        import json, resource, sys
        from pathlib import Path
        import jax, ml_dtypes, numpy as np
        from safetensors.numpy import save_file
        from judgelm_jax.checkpoints import open_checkpoint, orbax_store
        from judgelm_jax.checkpoints.conversion import convert
        from judgelm_jax.checkpoints.tensor_names import tensor_table
        from judgelm_jax.model import config_json
        from judgelm_jax.model.config import ModelConfig

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

        folder = Path(sys.argv[1])
        if sys.argv[2] == "make":
            config = ModelConfig(4096, 1024, 2816, 24, 16, 16, 64, 2048, 1e-5, 1e4, None, False, 1, (2,))
            block = np.random.default_rng(0).integers(0, 2**16, 4096 * 1024, np.uint16).view(ml_dtypes.bfloat16)
            names = tensor_table(config)
            tensors = {name: block[: int(np.prod(spec.shape))].reshape(spec.shape) for name, spec in names.items()}
            (folder / "a").mkdir()
            save_file(tensors, folder / "a/model.safetensors")
            (folder / "a/config.json").write_text(json.dumps(config_json.to_hf(config, "bfloat16")))
        else:
            orbax_store._GROUP_BYTES = 20 * 2**20
            jax.numpy.zeros(1).block_until_ready()
            source, target, to = sys.argv[2:]
            before = peak()
            convert(open_checkpoint(str(folder / source)), folder / target, to, shard_bytes=20 * 2**20)
            print(peak() - before)
    """
    assert run_python(code, tmp_path, "make").returncode == 0
    size = (tmp_path / "a/model.safetensors").stat().st_size / 2**20
    assert size > 580
    tensor, group = 8, 20  # MiB
    for source, target, to in [("a", "b", "orbax"), ("a", "c", "hf")]:
        done = run_python(code, tmp_path, source, target, to)
        assert float(done.stdout) < tensor + group + 40, (to, done)
    done = run_python(code, tmp_path, "b", "d", "hf")
    assert float(done.stdout) < size / 2, done  # Orbax reads 64 MiB at once and keeps freed memory for later
    for shard in (tmp_path / "c").glob("*.safetensors"):
        assert shard.read_bytes() == (tmp_path / "d" / shard.name).read_bytes()
