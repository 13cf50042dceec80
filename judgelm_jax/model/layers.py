"""The layers of a decoder, and with them the only declaration of each tensor: its shape, its axes, its first value.

From these follow the tree of parameters and their shardings (`parameters`), the tensors of a checkpoint, and the count of
FLOPs. No layer knows what pass it runs in: it asks the view that the pass brings along.

Letters of the shapes: B batch, S tokens, Q of them that have a query, E model width, H query heads, K key/value heads, D width
of a head.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from judgelm_jax.devices.sharding import LogicalAxes, constrain
from judgelm_jax.model import quantization, rotary
from judgelm_jax.model.cache import Cache
from judgelm_jax.model.config import Limits, ModelConfig
from judgelm_jax.model.matrix_product import product
from judgelm_jax.model.placement import Placement
from judgelm_jax.model.views import View


class ForwardPass(NamedTuple):
    """What all layers of a kind share in a forward pass: who sees whom, cosine and sine of every token's position, what limits
    attention, where it runs."""

    view: View
    rotation: rotary.Rotation
    limits: Limits
    placement: Placement


class Adapted(NamedTuple):
    """The projections that have low-rank adapters beside their weight, and their rank."""

    names: frozenset[str] = frozenset()
    rank: int = 0


NOT_ADAPTED = Adapted()
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


def _declare(shape: tuple[int, ...], axes: LogicalAxes, constant: float | None = None, dtype: Any = None) -> nnx.Param:
    """A tensor without a value; `constant` is what it holds before training (None: random numbers). `dtype`: the only one that
    it can have; None: that of the computation."""
    return nnx.Param(jax.ShapeDtypeStruct(shape, dtype or jnp.float32), axes=axes, constant=constant, dtype=dtype)


def _declare_matrix(module: Any, shape: tuple[int, int], axes: tuple[str, str], int8: bool) -> None:
    """`module.weight` [out, in]; with `int8`, whole numbers that `module.scale` [out] is multiplied with."""
    module.weight = _declare(shape, axes, dtype=jnp.int8 if int8 else None)
    if int8:
        module.scale = _declare((shape[0],), (axes[0],), constant=1.0, dtype=jnp.float32)


class Table(nnx.Module):
    """A vector for each word, [V, E]: the embedding, or the output matrix."""

    def __init__(self, config: ModelConfig):
        _declare_matrix(self, (config.vocab_size, config.hidden_size), ("vocab", "embed"), config.int8)


class Linear(nnx.Module):
    """y = x Wᵀ + b with W [out, in]; adapted, (x Aᵀ) Bᵀ is added, with A [rank, in] and B [out, rank].

    In int8, y = (x Wᵀ) s + b with a scale for each output.
    """

    def __init__(self, shape: tuple[int, int], axes: tuple[str, str], rank: int = 0, bias: bool = False, int8: bool = False):
        self.rank, self.biased, self.int8 = rank, bias, int8
        _declare_matrix(self, shape, axes, int8)
        if bias:
            self.bias = _declare((shape[0],), (axes[0],), constant=0.0)
        if rank:
            self.lora_a = _declare((rank, shape[1]), (None, axes[1]))
            self.lora_b = _declare((shape[0], rank), (axes[0], None), constant=0.0)

    def __call__(self, x: jax.Array, placement: Placement) -> jax.Array:
        if self.int8:
            y = quantization.product(x, self.weight[...], self.scale[...]).astype(x.dtype)
        else:
            y = product(x, self.weight[...], placement.on_cpus)
        if self.biased:
            y += self.bias[...]
        if self.rank:
            inner = product(x, self.lora_a[...], placement.on_cpus)
            y += product(inner, self.lora_b[...], placement.on_cpus)
        return y


class RMSNorm(nnx.Module):
    """Root-mean-square norm (Zhang & Sennrich, arXiv 1910.07467) of vectors of the model, or of a head, in float32."""

    def __init__(self, config: ModelConfig, of_heads: bool = False):
        shape, axes = ((config.head_dim,), ("head_dim",)) if of_heads else ((config.hidden_size,), ("width",))
        self.weight = _declare(shape, axes, constant=1.0 - config.norm_offset)
        self.epsilon, self.offset = config.norm_epsilon, config.norm_offset

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.epsilon)
        weight = self.weight[...].astype(jnp.float32)
        return (normed * (weight + self.offset if self.offset else weight)).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions (Su et al., arXiv 2104.09864)."""

    def __init__(self, config: ModelConfig, adapted: Adapted):
        self.config = config
        width, queries, keys = config.hidden_size, config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        bias, int8 = config.qkv_bias, config.int8
        self.q_proj = Linear((queries, width), ("query_rows", "read"), _rank(adapted, "q_proj"), bias, int8)
        self.k_proj = Linear((keys, width), ("key_rows", "read"), _rank(adapted, "k_proj"), bias, int8)
        self.v_proj = Linear((keys, width), ("key_rows", "read"), _rank(adapted, "v_proj"), bias, int8)
        self.o_proj = Linear((width, queries), ("embed", "heads"), _rank(adapted, "o_proj"), int8=int8)
        if config.qk_norm:
            self.q_norm, self.k_norm = RMSNorm(config, of_heads=True), RMSNorm(config, of_heads=True)
        # What scores are multiplied by beside the 1/√D of every attention.
        self.query_scale = 1.0 if config.query_scale is None else config.query_scale * config.head_dim**0.5

    def __call__(self, x: jax.Array, run: ForwardPass, cache: Cache | None, layer: Any) -> tuple[jax.Array, Cache | None]:
        config, view = self.config, run.view
        asking = view.queries(x)  # [B, Q, E]
        q = _heads(self.q_proj(asking, run.placement), config.num_heads)
        k = _heads(self.k_proj(x, run.placement), config.num_kv_heads)
        v = _heads(self.v_proj(x, run.placement), config.num_kv_heads)
        if config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        cosine, sine = run.rotation
        q = rotary.rotate(q, (view.queries(cosine), view.queries(sine)), self.query_scale)
        k = rotary.rotate(k, run.rotation)
        values, cache = view.attend(q, k, v, cache, layer, run.placement, run.limits)
        return self.o_proj(values, run.placement), cache


class MLP(nnx.Module):
    """A gated MLP: SwiGLU, or with another activation (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig, adapted: Adapted):
        width, hidden, int8 = config.hidden_size, config.intermediate_size, config.int8
        self.activation = _ACTIVATIONS[config.activation]
        self.gate_proj = Linear((hidden, width), ("hidden_rows", "read"), _rank(adapted, "gate_proj"), int8=int8)
        self.up_proj = Linear((hidden, width), ("hidden_rows", "read"), _rank(adapted, "up_proj"), int8=int8)
        self.down_proj = Linear((width, hidden), ("embed", "hidden"), _rank(adapted, "down_proj"), int8=int8)

    def __call__(self, x: jax.Array, placement: Placement) -> jax.Array:
        inner = self.activation(self.gate_proj(x, placement)) * self.up_proj(x, placement)
        return self.down_proj(constrain(inner, placement.mesh, ("batch", "sequence", "hidden")), placement)


class Layer(nnx.Module):
    """One decoder layer: attention and MLP, each behind a norm and added to the residual stream, with `post_norms` behind a
    second one. The names are those of Hugging Face, where `post_attention_layernorm` is either."""

    def __init__(self, config: ModelConfig, adapted: Adapted = NOT_ADAPTED):
        self.post_norms = config.post_norms
        self.input_layernorm = RMSNorm(config)
        self.self_attn = Attention(config, adapted)
        self.post_attention_layernorm = RMSNorm(config)
        if config.post_norms:
            self.pre_feedforward_layernorm = RMSNorm(config)
        self.mlp = MLP(config, adapted)
        if config.post_norms:
            self.post_feedforward_layernorm = RMSNorm(config)

    def __call__(self, x: jax.Array, run: ForwardPass, cache: Cache | None, layer: Any) -> tuple[jax.Array, Cache | None]:
        """The output [B, Q, E] of the tokens whose output the view wants, of x [B, S, E]; keys and values are those of all."""
        mixed, cache = self.self_attn(self.input_layernorm(x), run, cache, layer)
        if self.post_norms:
            x = run.view.queries(x) + self.post_attention_layernorm(mixed)
            inner = self.mlp(self.pre_feedforward_layernorm(x), run.placement)
            x = x + self.post_feedforward_layernorm(inner)
        else:
            x = run.view.queries(x) + mixed
            x = x + self.mlp(self.post_attention_layernorm(x), run.placement)
        return constrain(x, run.placement.mesh, ("batch", "sequence", "width")), cache


def _rank(adapted: Adapted, name: str) -> int:
    return adapted.rank if name in adapted.names else 0


def _heads(x: jax.Array, heads: int) -> jax.Array:
    """[B, S, heads, D] of [B, S, heads · D]."""
    return x.reshape(*x.shape[:2], heads, -1)
