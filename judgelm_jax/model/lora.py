"""Low-rank adapters (Hu et al., arXiv 2106.09685): W + (alpha / rank) · B A, with B A trained and W frozen.

Adapters are a tree of their own, {"layers": {"self_attn": {"q_proj": {"lora_a": [L, rank, in], "lora_b": [L, out, rank]}}}},
with the projections that `LoraConfig.targets` names. They hold A and B as PEFT does, without the scale; `attach` puts them
beside the weights, where `llama.forward` finds them. The rank is at least 1 everywhere here.
"""

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from judgelm_jax import sharding
from judgelm_jax.model import llama
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.training_config import LoraConfig

Adapters = dict[str, Any]


def init(config: ModelConfig, lora: LoraConfig, key: jax.Array) -> Adapters:
    """Float32 adapters that change nothing yet: B zero, A uniform within ±1/√in (PEFT: Kaiming with a = √5).

    Each leaf has its own key, by its name: what a projection gets does not depend on the other targets.
    """

    def leaf(path: Any, shape: tuple[int, ...]) -> jax.Array:
        name = jax.tree_util.keystr(path)
        if "lora_b" in name:
            return jnp.zeros(shape, jnp.float32)
        own, bound = jax.random.fold_in(key, zlib.crc32(name.encode())), 1 / math.sqrt(shape[-1])
        return jax.random.uniform(own, shape, jnp.float32, -bound, bound)

    return jax.tree_util.tree_map_with_path(leaf, _shapes(config, lora), is_leaf=_is_tuple)


def axes(config: ModelConfig, lora: LoraConfig) -> Adapters:
    """The logical axes of each leaf: those of its weight; the rank is not split."""
    return _beside(llama.param_axes(config), lora, None)


def shardings(config: ModelConfig, lora: LoraConfig, mesh: Mesh) -> Adapters:
    """The sharding of each leaf on `mesh`.

    Raises:
      InputError: the mesh does not divide a dimension.
    """
    return jax.tree.map(
        lambda own, shape: sharding.sharding(mesh, own, shape), axes(config, lora), _shapes(config, lora), is_leaf=_is_tuple
    )


def scale(lora: LoraConfig) -> float:
    """What B A is multiplied by."""
    return lora.alpha / lora.rank


def attach(params: llama.Params, adapters: Adapters, lora: LoraConfig) -> llama.Params:
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


def _shapes(config: ModelConfig, lora: LoraConfig) -> Adapters:
    weights = jax.tree.map(lambda weight: weight.shape, llama.abstract_params(config, jnp.float32))
    return _beside(weights, lora, lora.rank)


def _beside(weights: Any, lora: LoraConfig, rank: int | None) -> Adapters:
    """The tree of adapters, whose leaves are put together from those of the weights: (layer, out, in), sizes or axes."""
    layers: Adapters = {}
    for part in ("self_attn", "mlp"):
        for name, projection in weights["layers"][part].items():
            if name in lora.targets:
                layer, outward, inward = projection["weight"]
                pair = {"lora_a": (layer, rank, inward), "lora_b": (layer, outward, rank)}
                layers.setdefault(part, {})[name] = pair
    return {"layers": layers}


def _is_tuple(x: Any) -> bool:
    return isinstance(x, tuple)
