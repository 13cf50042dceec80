"""From tensors on disk to the parameters of the model, on their devices: stacked to train, unstacked to judge."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from tqdm import tqdm

from judgelm_jax.checkpoints.tensor_names import TensorSpec, Weights, tensor_table
from judgelm_jax.model.config import ModelConfig

Params = dict[str, Any]
TreePath = tuple[str, ...]


def load_unstacked(weights: Weights, config: ModelConfig, shardings: Params, dtype: Any) -> Params:
    """The parameters with a list of layers, cast to `dtype` (but those that have one of their own), straight to their devices:
    these hold nothing beside the result.

    `shardings`: those of stacked parameters, as of `load_params`.
    """
    table = tensor_table(config)
    placed = {spec.path: _leaf(shardings, spec.path) for spec in table.values()}
    outside = {name: spec for name, spec in table.items() if spec.layer is None}
    params = _nested(_cast(_read(weights, outside, placed), outside, dtype))
    layers = []
    for i in tqdm(range(config.num_layers), desc="loading", unit="layer", disable=None):
        own = {name: spec for name, spec in table.items() if spec.layer == i}
        in_layer = {spec.path: _without_layer_axis(placed[spec.path]) for spec in own.values()}
        read = _cast(_read(weights, own, in_layer), own, dtype)
        layers.append(_nested({path[1:]: array for path, array in read.items()}))
    return {**params, "layers": layers}


def load_params(weights: Weights, config: ModelConfig, shardings: Params | None, dtype: Any) -> Params:
    """The parameters as a dict tree, layers stacked along a leading axis `[L, ...]`, cast to `dtype` (but those that can
    have one dtype only).

    One layer at a time is read, straight to its devices, and copied there into the stacked arrays. So host memory holds
    no stacked array, and a device holds one layer beside its result.

    Args:
      shardings: a tree like the result, of the shardings of its arrays; None: all on the default device.
    """
    table = tensor_table(config)
    default = SingleDeviceSharding(jax.local_devices()[0])
    placed = {spec.path: default if shardings is None else _leaf(shardings, spec.path) for spec in table.values()}
    outside = {name: spec for name, spec in table.items() if spec.layer is None}
    layers = [{name: spec for name, spec in table.items() if spec.layer == i} for i in range(config.num_layers)]

    specs = {spec.path: spec for spec in layers[0].values()}
    stacked_shardings = {path: placed[path] for path in specs}

    def zeros() -> dict[TreePath, jax.Array]:
        return {path: jnp.zeros((config.num_layers, *spec.shape), spec.dtype or dtype) for path, spec in specs.items()}

    stacked = jax.jit(zeros, out_shardings=stacked_shardings)()
    write = jax.jit(_write_layer, donate_argnums=0, out_shardings=stacked_shardings)
    in_layer = {path: _without_layer_axis(sharding) for path, sharding in stacked_shardings.items()}
    for i, layer in enumerate(tqdm(layers, desc="loading", unit="layer", disable=None)):
        stacked = write(stacked, _read(weights, layer, in_layer), i)

    return _nested(stacked | _cast(_read(weights, outside, placed), outside, dtype))


def _cast(arrays: Mapping[TreePath, jax.Array], specs: Mapping[str, TensorSpec], dtype: Any) -> dict[TreePath, jax.Array]:
    own = {spec.path: spec.dtype for spec in specs.values()}
    return {path: array.astype(own[path] or dtype) for path, array in arrays.items()}


def _nested(arrays: Mapping[TreePath, jax.Array]) -> Params:
    params: Params = {}
    for path, array in arrays.items():
        node = params
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = array
    return params


def _write_layer(
    stacked: dict[TreePath, jax.Array], layer: dict[TreePath, jax.Array], index: jax.Array
) -> dict[TreePath, jax.Array]:
    return {
        path: jax.lax.dynamic_update_index_in_dim(array, layer[path].astype(array.dtype), index, axis=0)
        for path, array in stacked.items()
    }


def _read(
    weights: Weights, specs: Mapping[str, TensorSpec], shardings: Mapping[TreePath, Sharding]
) -> dict[TreePath, jax.Array]:
    arrays = weights.arrays({name: shardings[spec.path] for name, spec in specs.items()})
    return {spec.path: arrays[name] for name, spec in specs.items()}


def _without_layer_axis(sharding: Sharding) -> Sharding:
    if isinstance(sharding, NamedSharding):
        return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    return sharding


def _leaf(tree: Params, path: TreePath) -> Any:
    for key in path:
        tree = tree[key]
    return tree
