"""Parameters in memory: stacked, cast and placed as asked, equal to what PyTorch holds."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
import torch

from judgelm_jax.bench.checkpoints import write_random_checkpoint
from judgelm_jax.checkpoints import Checkpoint, open_checkpoint, orbax_store
from judgelm_jax.checkpoints.conversion import convert
from judgelm_jax.checkpoints.tensor_names import stored_bytes, tensor_table
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.model import parameters
from judgelm_jax.model.config import ModelConfig

FORMS = ["safetensors", "sharded bin", "orbax"]


def opened(folder: Path, write_checkpoint: Any, form: str, **settings: Any) -> tuple[Checkpoint, dict[str, torch.Tensor]]:
    tensors = write_checkpoint(folder / "hf", form="safetensors" if form == "orbax" else form, **settings)
    checkpoint = open_checkpoint(str(folder / "hf"))
    if form == "orbax":
        convert(checkpoint, folder / "orbax", "orbax")
        checkpoint = open_checkpoint(str(folder / "orbax"))
    return checkpoint, tensors


def stacked(checkpoint: Checkpoint, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[tuple[str, ...], np.ndarray]:
    """What the tree must hold, by path, computed by PyTorch in float32 after the cast."""
    table = tensor_table(checkpoint.config)
    cast = {name: tensor.to(dtype).float().numpy() for name, tensor in tensors.items()}
    paths = {spec.path: [n for n, other in table.items() if other.path == spec.path] for spec in table.values()}
    return {
        path: cast[names[0]] if path[0] != "layers" else np.stack([cast[name] for name in names])
        for path, names in paths.items()
    }


def leaves(tree: Any) -> dict[tuple[str, ...], Any]:
    return {tuple(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize(("stored", "wanted"), [("float32", "float32"), ("float16", "float32"), ("float32", "bfloat16")])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_the_tree_holds_stacked_tensors_in_the_wanted_dtype(
    tmp_path: Path, write_checkpoint, form: str, tied: bool, stored: str, wanted: str
) -> None:
    checkpoint, tensors = opened(tmp_path, write_checkpoint, form, dtype=getattr(torch, stored), tied=tied)
    params = checkpoint.load(None, jnp.dtype(wanted))
    assert jax.tree.structure(params) == jax.tree.structure(parameters.abstract_params(checkpoint.config, wanted))
    expected = stacked(checkpoint, tensors, getattr(torch, wanted))
    loaded = leaves(params)
    assert loaded.keys() == expected.keys()
    for path, array in loaded.items():
        assert array.dtype == wanted
        np.testing.assert_array_equal(np.asarray(array.astype(jnp.float32)), expected[path], err_msg=str(path))


@pytest.mark.parametrize("mesh", [MeshConfig(2, 2, 2), MeshConfig(1, 4, 2), MeshConfig(8, 1, 1)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_parameters_lie_where_the_shardings_say(tmp_path: Path, write_checkpoint, form: str, mesh: MeshConfig) -> None:
    checkpoint, tensors = opened(tmp_path, write_checkpoint, form, dtype=torch.bfloat16)
    shardings = parameters.param_shardings(checkpoint.config, make_mesh(mesh))
    params = checkpoint.load(shardings, jnp.float32)
    expected = stacked(checkpoint, tensors, torch.float32)
    wanted = leaves(shardings)
    for path, array in leaves(params).items():
        assert array.sharding.is_equivalent_to(wanted[path], array.ndim), path
        np.testing.assert_array_equal(np.asarray(array), expected[path], err_msg=str(path))
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(np.asarray(shard.data), expected[path][shard.index])


def test_each_device_part_of_a_safetensors_file_is_read_once_and_alone(
    tmp_path: Path, write_checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, _ = opened(tmp_path, write_checkpoint, "safetensors")
    weights: Any = checkpoint.weights
    read_slice, reads = weights._read_slice, []

    def counted(name: str, index: tuple[slice, ...]) -> np.ndarray:
        part = read_slice(name, index)
        reads.append((name, part.size))
        return part

    monkeypatch.setattr(weights, "_read_slice", counted)
    checkpoint.load(parameters.param_shardings(checkpoint.config, make_mesh(MeshConfig(2, 2, 2))), jnp.float32)
    for name, spec in tensor_table(checkpoint.config).items():
        sizes = [size for other, size in reads if other == name]
        assert sum(sizes) == np.prod(spec.shape), name  # nothing twice, though two devices hold each part
        assert len(sizes) > 1 or len(spec.shape) == 1, name


def bytes_read() -> int:
    """What TensorStore has read of files so far, by its own count."""
    (metric,) = tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
    return sum(value["value"] for value in metric["values"])


@pytest.fixture(scope="module")
def eighth_of_7b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted layer of a 7B model, an eighth as wide and high, in chunks that are smaller likewise."""
    folder = tmp_path_factory.mktemp("eighth")
    config = ModelConfig(4000, 512, 1376, 1, 32, 32, 16, 2048, 1e-5, 1e4, None, False, 1, (2,))
    write_random_checkpoint(folder / "hf", config, jnp.bfloat16, seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(orbax_store, "_CHUNK_BYTES", orbax_store._CHUNK_BYTES // 64)
        convert(open_checkpoint(str(folder / "hf")), folder / "orbax", "orbax")
    return folder / "orbax"


@pytest.mark.parametrize("mesh", [MeshConfig(1, 8, 1), MeshConfig(1, 1, 8), MeshConfig(2, 2, 2), MeshConfig(8, 1, 1)], ids=str)
def test_of_a_converted_folder_each_device_reads_its_slices_only(eighth_of_7b: Path, mesh: MeshConfig) -> None:
    checkpoint = open_checkpoint(str(eighth_of_7b))
    shardings = parameters.param_shardings(checkpoint.config, make_mesh(mesh))
    before = bytes_read()
    checkpoint.load(shardings, jnp.float32)
    read, stored = bytes_read() - before, stored_bytes(checkpoint.weights, checkpoint.config)
    assert stored <= read < 1.02 * stored  # the rest says where the chunks lie
