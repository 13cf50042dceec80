"""Low-rank adapters (Hu et al., arXiv 2106.09685): W + (alpha / rank) · B A, with B A trained and W frozen.

Adapters are a tree of their own, {"layers": {"self_attn": {"q_proj": {"lora_a": [L, rank, in], "lora_b": [L, out, rank]}}}},
with the projections that `LoraConfig.targets` names. They hold A and B as PEFT does, without the scale; `attach` puts them
beside the weights, where `decoder.forward` finds them. The rank is at least 1 everywhere here.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from judgelm_jax.devices import sharding
from judgelm_jax.model import parameters
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.layers import Adapted
from judgelm_jax.model.parameters import Declared, Params, Path
from judgelm_jax.training_config import LoraConfig

Adapters = dict[str, Any]


def init(config: ModelConfig, lora: LoraConfig, key: jax.Array) -> Adapters:
    """Float32 adapters that change nothing yet: B zero, A uniform within ±1/√in (PEFT: Kaiming with a = √5).

    Each leaf has its own key, by its name: what a projection gets does not depend on the other targets.
    """

    def value(path: Path, tensor: Declared) -> jax.Array:
        if tensor.constant is not None:
            return jnp.full(tensor.shape, tensor.constant, jnp.float32)
        bound = 1 / math.sqrt(tensor.shape[-1])
        return jax.random.uniform(parameters.key_of(key, path), tensor.shape, jnp.float32, -bound, bound)

    return parameters.nested({path: value(path, tensor) for path, tensor in declared(config, lora).items()})


def declared(config: ModelConfig, lora: LoraConfig) -> dict[Path, Declared]:
    """The tensors of the adapters, as the layers declare them beside their weights."""
    whole = parameters.declared(config, Adapted(frozenset(lora.targets), lora.rank))
    plain = parameters.declared(config)
    return {path: tensor for path, tensor in whole.items() if path not in plain}


def pairs(config: ModelConfig, lora: LoraConfig) -> dict[Path, tuple[Path, Path]]:
    """Of each weight that has an adapter, the paths of A and B in the tree of adapters."""
    halves = [path for path in declared(config, lora) if path[-1] == "lora_a"]
    return {(*path[:-1], "weight"): (path, (*path[:-1], "lora_b")) for path in halves}


def shardings(config: ModelConfig, lora: LoraConfig, mesh: Mesh) -> Adapters:
    """The sharding of each leaf on `mesh`.

    Raises:
      InputError: the mesh does not divide a dimension.
    """
    return parameters.nested(
        {path: sharding.sharding(mesh, tensor.axes, tensor.shape) for path, tensor in declared(config, lora).items()}
    )


def scale(lora: LoraConfig) -> float:
    """What B A is multiplied by."""
    return lora.alpha / lora.rank


def attach(params: Params, adapters: Adapters, lora: LoraConfig) -> Params:
    """The parameters with adapters beside the weights, each in its weight's dtype, B scaled before it is rounded.

    Differentiable in both: the gradient to adapters has their own dtype and scale.
    """
    layers = dict(params["layers"])
    for part, projections in adapters["layers"].items():
        layers[part] = dict(layers[part])
        for name, pair in projections.items():
            dtype = layers[part][name]["weight"].dtype
            a, b = jnp.asarray(pair["lora_a"], dtype), jnp.asarray(scale(lora) * pair["lora_b"], dtype)
            layers[part][name] = layers[part][name] | {"lora_a": a, "lora_b": b}
    return params | {"layers": layers}


def merged(weight: np.ndarray, a: np.ndarray, b: np.ndarray, scale: float) -> np.ndarray:
    """W + scale · B A of one layer, computed in float32, in the dtype of W [out, in]. A is [rank, in], B [out, rank]."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    return (weight.astype(np.float32) + (np.float32(scale) * b) @ a).astype(weight.dtype)
