"""The tree of parameters, as the layers declare it: shapes, logical axes, shardings, first values.

Parameters are a plain dict pytree with the names and the [out, in] layout of Hugging Face; the tensors of layers are stacked
along a leading axis: {"embed_tokens": {"weight": [V, E]}, "layers": {"mlp": {"up_proj": {"weight": [L, F, E]}, ...}}, ...}.
"""

import dataclasses
import functools
import math
import types
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from judgelm_jax.devices.sharding import LogicalAxes, sharding
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.layers import NOT_ADAPTED, Adapted, Layer, RMSNorm, Table

Params = dict[str, Any]
Path = tuple[str, ...]  # keys from the root of the tree to a tensor


@dataclasses.dataclass(frozen=True)
class Declared:
    """One tensor; those of the layers have a leading axis `layer`. `constant`: what it holds before training; None: random.

    `dtype`: the only one that it can have, as scales of int8 weights do; None: that of the computation.
    """

    shape: tuple[int, ...]
    axes: LogicalAxes
    constant: float | None
    dtype: Any = None

    @property
    def of_layers(self) -> bool:
        """Whether it is one tensor for each layer, stacked."""
        return "layer" in self.axes

    @property
    def is_matrix(self) -> bool:
        """Whether activations are multiplied with it: no norm, no bias."""
        return len(self.shape) - self.of_layers == 2

    @property
    def size(self) -> int:
        """The number of values, of all layers."""
        return math.prod(self.shape)


@functools.cache
def declared(config: ModelConfig, adapted: Adapted = NOT_ADAPTED) -> Mapping[Path, Declared]:
    """Every tensor of a model, in the order of the forward pass."""
    modules: dict[str, nnx.Module] = {"embed_tokens": Table(config), "layers": Layer(config, adapted), "norm": RMSNorm(config)}
    if not config.tied_embeddings:
        modules["lm_head"] = Table(config)
    found: dict[Path, Declared] = {}

    def visit(path: Path, node: Any) -> None:
        if isinstance(node, nnx.Variable):
            shape, axes = node.get_value().shape, node.axes
            if path[0] == "layers":
                shape, axes = (config.num_layers, *shape), ("layer", *axes)
            found[path] = Declared(shape, axes, node.constant, node.dtype)
        elif isinstance(node, nnx.Module):
            for name, child in vars(node).items():  # in the order in which they were assigned
                visit((*path, name), child)

    for name, module in modules.items():
        visit((name,), module)
    return types.MappingProxyType(found)


def nested(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """The tree with these leaves."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return tree


def abstract_params(config: ModelConfig, dtype: Any) -> Params:
    """The tree of parameters as `jax.ShapeDtypeStruct`s, without values."""
    tensors = declared(config).items()
    return nested({path: jax.ShapeDtypeStruct(tensor.shape, tensor.dtype or dtype) for path, tensor in tensors})


def param_axes(config: ModelConfig) -> Params:
    """The logical axes of each parameter, in the structure of `abstract_params`."""
    return nested({path: tensor.axes for path, tensor in declared(config).items()})


def param_shardings(config: ModelConfig, mesh: Mesh) -> Params:
    """The sharding of each parameter on `mesh`.

    Raises:
      InputError: the mesh does not divide a dimension (or the key/value heads).
    """
    sharding(mesh, ("kv_heads",), (config.num_kv_heads,))  # the weight may divide where its heads do not
    sharding(mesh, ("heads",), (config.num_heads,))
    placed: dict[Path, NamedSharding] = {
        path: sharding(mesh, tensor.axes, tensor.shape) for path, tensor in declared(config).items()
    }
    return nested(placed)


def init_params(config: ModelConfig, key: jax.Array, dtype: Any, deviation: float = 0.02) -> Params:
    """Parameters before training: normal with this standard deviation, norms at one. Each has its own key, by its name."""

    def value(path: Path, tensor: Declared) -> jax.Array:
        if tensor.constant is not None:
            return jnp.full(tensor.shape, tensor.constant, dtype)
        random = jax.random.normal(key_of(key, path), tensor.shape, jnp.float32)
        return (random * deviation).astype(dtype)

    return nested({path: value(path, tensor) for path, tensor in declared(config).items()})


def key_of(key: jax.Array, path: Path) -> jax.Array:
    """A random key for one tensor, by its name: what it gets does not depend on the others."""
    name = "".join(f"[{part!r}]" for part in path)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def unstacked(params: Params, config: ModelConfig) -> Params:
    """The same parameters with a list of layers, one tree each, which `forward` runs one after another without a loop.

    A matrix product on a CPU or GPU copies a weight that is a part of a stacked one before it reads it. Parameters that are
    unstacked are given back as they are.
    """
    if isinstance(params["layers"], list):
        return params
    layers = (functools.partial(_layer_of, layer=layer) for layer in range(config.num_layers))
    return {**params, "layers": [jax.tree.map(of_layer, params["layers"]) for of_layer in layers]}


def _layer_of(stacked: Any, layer: int) -> Any:
    """One layer of a stacked array, or of the shape of one."""
    if not isinstance(stacked, jax.ShapeDtypeStruct):
        return stacked[layer]
    own = stacked.sharding
    if isinstance(own, NamedSharding):
        own = NamedSharding(own.mesh, PartitionSpec(*own.spec[1:]))
    return jax.ShapeDtypeStruct(stacked.shape[1:], stacked.dtype, sharding=own)
