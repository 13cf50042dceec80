"""The LLaMA decoder (Touvron et al., arXiv 2302.13971): one forward pass for training, prefill, decoding and score trees.

Parameters are a plain dict pytree with the names and the [out, in] layout of Hugging Face; the leaves of all layers are
stacked along a leading axis and scanned. The compute dtype is that of the parameters.

Letters of the shapes: B batch, S tokens, E model width, F hidden width of the MLP, H query heads, K key/value heads,
D width of a head, L layers, V words.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from judgelm_jax.model import attention, rotary
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.sharding import LogicalAxes, constrain, sharding

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where and how a forward pass runs; hashable, so that it can be a static argument.

    `remat` says what a backward pass computes again instead of keeping it: `none`; `dots`, all but the results of matrix
    products with weights; `full`, everything but the residual stream between layers.
    """

    mesh: Mesh | None = None
    attention: str = "xla"
    remat: str = "none"


class Weight(nnx.Module):
    """One tensor and the logical axes of its dimensions, declared without a value."""

    def __init__(self, shape: tuple[int, ...], axes: LogicalAxes):
        self.weight = nnx.Param(jax.ShapeDtypeStruct(shape, jnp.float32), axes=axes)


class Linear(Weight):
    """y = x Wᵀ with W [out, in], no bias; adapted, y = x Wᵀ + (x Aᵀ) Bᵀ with A [rank, in] and B [out, rank]."""

    def __init__(self, shape: tuple[int, int], axes: tuple[str, str], adapted: bool):
        super().__init__(shape, axes)
        self.adapted = adapted
        if adapted:  # the rank is that of the values which are merged in
            self.lora_a = nnx.Param(jax.ShapeDtypeStruct((1, shape[1]), jnp.float32), axes=(None, axes[1]))
            self.lora_b = nnx.Param(jax.ShapeDtypeStruct((shape[0], 1), jnp.float32), axes=(axes[0], None))

    def __call__(self, x: jax.Array) -> jax.Array:
        y = jnp.einsum("...i,oi->...o", x, self.weight[...])
        if self.adapted:
            y += jnp.einsum("...r,or->...o", jnp.einsum("...i,ri->...r", x, self.lora_a[...]), self.lora_b[...])
        return y


class RMSNorm(Weight):
    """Root-mean-square norm (Zhang & Sennrich, arXiv 1910.07467), in float32."""

    def __init__(self, width: int, epsilon: float):
        super().__init__((width,), ("width",))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + self.epsilon)
        return (normed * self.weight[...].astype(jnp.float32)).astype(x.dtype)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions (Su et al., arXiv 2104.09864)."""

    def __init__(self, config: ModelConfig, adapted: frozenset[str]):
        self.config = config
        queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = Linear((queries, config.hidden_size), ("heads", "embed"), "q_proj" in adapted)
        self.k_proj = Linear((keys, config.hidden_size), ("kv_heads", "embed"), "k_proj" in adapted)
        self.v_proj = Linear((keys, config.hidden_size), ("kv_heads", "embed"), "v_proj" in adapted)
        self.o_proj = Linear((config.hidden_size, queries), ("embed", "heads"), "o_proj" in adapted)

    def __call__(self, x, rotation, reach, cache, layer, placement, documents, packed, ends):
        config, mesh = self.config, placement.mesh
        asking = x if ends is None else take(x, ends)
        q, k, v = (
            project(tokens).reshape(*tokens.shape[:2], heads, config.head_dim)
            for project, tokens, heads in (
                (self.q_proj, asking, config.num_heads),
                (self.k_proj, x, config.num_kv_heads),
                (self.v_proj, x, config.num_kv_heads),
            )
        )
        cosine, sine = rotation
        q = rotary.rotate(q, rotation if ends is None else (take(cosine, ends), take(sine, ends)))
        k = rotary.rotate(k, rotation)
        if packed is not None:
            k, v = (_each(tokens, packed.places) for tokens in (k, v))
            q = _each(q, packed.places) if ends is None else q.reshape(-1, 1, *q.shape[2:])
        q = constrain(q, mesh, ("batch", "sequence", "heads", "head_dim"))
        k, v = (constrain(x.swapaxes(1, 2), mesh, ("batch", "kv_heads", "sequence", "head_dim")) for x in (k, v))
        if reach is None:
            cache = None if cache is None else kv_cache.begin(cache, layer, k, v)
            mask = spans = None
            if packed is not None:
                last = take(packed.positions, packed.ends).reshape(-1, 1)
                if ends is None:
                    spans = jnp.concatenate([packed.owns.reshape(-1, 1), last + 1], axis=1)
                else:
                    mask = attention.cache_mask(last, k.shape[2])
            out = attention.attend(q, k, v, mask, placement.attention, documents and documents.segments, spans, mesh)
        else:
            cache = kv_cache.write(cache, layer, reach.slots, k, v)
            held = kv_cache.of_layer(cache, layer)
            out = attention.attend_cache(q, *held, reach.mask, reach.used, placement.attention, mesh)
        out = out.reshape(x.shape[0], -1, config.num_heads * config.head_dim)
        return self.o_proj(out if packed is None or ends is not None else take(out, packed.sources)), cache


class MLP(nnx.Module):
    """SwiGLU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig, adapted: frozenset[str]):
        self.gate_proj = Linear((config.intermediate_size, config.hidden_size), ("hidden", "embed"), "gate_proj" in adapted)
        self.up_proj = Linear((config.intermediate_size, config.hidden_size), ("hidden", "embed"), "up_proj" in adapted)
        self.down_proj = Linear((config.hidden_size, config.intermediate_size), ("embed", "hidden"), "down_proj" in adapted)

    def __call__(self, x: jax.Array, mesh: Mesh | None) -> jax.Array:
        inner = jax.nn.silu(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(constrain(inner, mesh, ("batch", "sequence", "hidden")))


class Layer(nnx.Module):
    """One decoder layer: attention and MLP, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, adapted: frozenset[str] = frozenset()):
        """`adapted` names the projections that have low-rank adapters."""
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.self_attn = Attention(config, adapted)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_epsilon)
        self.mlp = MLP(config, adapted)

    def __call__(self, x, rotation, reach, cache, layer, placement, documents=None, packed=None, ends=None):
        """With `ends` int32 [B, P], the output is that of these tokens of each row; keys and values are still those of all."""
        normed = self.input_layernorm(x)
        mixed, cache = self.self_attn(normed, rotation, reach, cache, layer, placement, documents, packed, ends)
        x = (x if ends is None else take(x, ends)) + mixed
        x = x + self.mlp(self.post_attention_layernorm(x), placement.mesh)
        return constrain(x, placement.mesh, ("batch", "sequence", "width")), cache


class Reach(NamedTuple):
    """Where the new tokens of a forward pass over a cache stand, and what they see.

    `positions` int32 [B, S] turn the rotary angles; `slots` int32 [B, S] say where in the cache keys and values go (outside
    of it: nowhere); `mask` bool [B, S, T] says which of the first T slots each token sees, its own among them. Where it is one
    token a row that sees the first slots up to its own, `used` int32 [B] says how many these are.
    """

    positions: jax.Array
    slots: jax.Array
    mask: jax.Array
    used: jax.Array | None = None


class Documents(NamedTuple):
    """Several documents in one row, each apart from the others (training): `positions` int32 [B, S] start again at 0 in each;
    a token sees those of its own number in `segments` int32 [B, S] up to itself."""

    positions: jax.Array
    segments: jax.Array


class Packed(NamedTuple):
    """Prompts, P in each row of S tokens, whose common beginnings are there once: every row is a tree of tokens.

    `places` int32 [B, P, T]: where in the row the tokens of each prompt are, any place behind a prompt's end. `ends` int32
    [B, P]: where its last one is. `positions` int32 [B, S]: of each token of the row in its prompts. `sources` int32 [B, S]:
    prompt * T + position, the first of the prompts that have it. `owns` int32 [B, P]: in each prompt, the number of tokens in
    front that a prompt before it has, too; of what only fills up the P prompts, T.
    """

    places: jax.Array
    owns: jax.Array
    ends: jax.Array
    positions: jax.Array
    sources: jax.Array


def in_order(positions: jax.Array, slots: int) -> Reach:
    """Tokens that continue their rows: each is written at its position and sees all up to it, within the first `slots`."""
    alone = positions[:, 0] if positions.shape[1] == 1 else None
    used = None if alone is None else jnp.where(alone < slots, alone + 1, 1)  # behind all slots: a row that has ended
    return Reach(positions, positions, attention.cache_mask(positions, slots), used)


def forward(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    reach: Reach | None = None,
    cache: kv_cache.Cache | None = None,
    placement: Placement = Placement(),
    documents: Documents | None = None,
    packed: Packed | None = None,
) -> tuple[jax.Array, kv_cache.Cache]:
    """Runs the decoder over tokens that stand at the start of their rows, or that continue a cache.

    Args:
      params: as `abstract_params` describes them, with adapters where `lora.attach` put them, or `unstacked`.
      tokens: int32 [B, S], padded on the right. What follows a row's last token changes nothing before it.
      reach: with a cache, where the tokens stand and what they see. Without it they stand at 0..S-1 and see what is before
        them.
      cache: keys and values of the tokens before; without `reach`, an empty one of S slots or more, to be begun (with `packed`,
        one row of T slots or more for each prompt).
      placement: mesh and attention backend.
      documents: without `reach`, how the rows divide into documents; default: a row is one.
      packed: without `reach`, the prompts that are packed into the rows. Of each, only the output at its end is wanted, so the
        last layer computes no more than keys and values for the other tokens.

    Returns:
      The residual stream after the last norm, [B, S, E] (with `packed`, [B, P, E]), and the cache with the keys and values of
      these tokens written (without one, nothing).
    """
    if sum(given is not None for given in (reach, documents, packed)) > 1:
        raise ValueError("give one of reach, documents and packed")
    if reach is not None and cache is None:
        raise ValueError("reach is for tokens that continue a cache: give it, too")
    embedding = params["embed_tokens"]["weight"]
    with jax.default_matmul_precision("highest" if embedding.dtype == jnp.float32 else "default"):
        x = constrain(embedding[tokens], placement.mesh, ("batch", "sequence", "width"))
        placed = next((given for given in (reach, documents, packed) if given is not None), None)
        rotation = rotary.rotation(config, jnp.arange(tokens.shape[1])[None] if placed is None else placed.positions)
        layers, top = params["layers"], config.num_layers - 1
        ends = None if packed is None else packed.ends
        graph = _layer_graph(config, _adapted(params))

        def run_layer(carry, scanned, ends=None):
            x, cache = carry
            layer, weights = scanned
            return nnx.merge(graph, weights)(x, rotation, reach, cache, layer, placement, documents, packed, ends), None

        def run_layer_at(carry, layer, ends=None):
            return run_layer(carry, (layer, jax.tree.map(lambda stacked: stacked[layer], layers)), ends)

        carry = (x, cache)
        if isinstance(layers, list):
            for layer, weights in enumerate(layers):
                carry, _ = run_layer(carry, (layer, weights), ends if layer == top else None)
        elif ends is None:
            step = _rematerialized(run_layer, placement.remat)
            carry, _ = jax.lax.scan(step, carry, (jnp.arange(config.num_layers), layers))
        else:  # the weights of the last layer stand apart: those below are taken by their number, not copied
            carry, _ = jax.lax.scan(run_layer_at, carry, jnp.arange(top))
            carry, _ = run_layer_at(carry, top, ends)
        x, cache = carry
        norm = nnx.merge(_norm_graph(config), params["norm"])
        return norm(x), {} if cache is None else cache


def unstacked(params: Params, config: ModelConfig) -> Params:
    """The same parameters with a list of layers, one tree each, which `forward` runs one after another without a loop.

    A matrix product on a CPU copies a weight that is a part of a stacked one before it reads it.
    """
    layers = [jax.tree.map(lambda stacked: stacked[layer], params["layers"]) for layer in range(config.num_layers)]  # noqa: B023
    return {**params, "layers": layers}


def _rematerialized(run_layer: Callable, remat: str) -> Callable:
    if remat == "none":
        return run_layer
    policies = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
    return jax.checkpoint(run_layer, policy=policies[remat], prevent_cse=False)  # a scan needs no barriers


def take(x: jax.Array, places: jax.Array) -> jax.Array:
    """[B, P, ...]: of each row of x [B, S, ...], the entries at `places` int32 [B, P]."""
    return jnp.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), axis=1)


def _each(tokens: jax.Array, places: jax.Array) -> jax.Array:
    """[B * P, T, ...]: the tokens [B, S, ...] of each of the prompts whose places are int32 [B, P, T]."""
    rows, prompts, length = places.shape
    flat = tokens.reshape(*tokens.shape[:2], -1)  # a gather of whole vectors is three times as fast on CPUs
    return take(flat, places.reshape(rows, -1)).reshape(rows * prompts, length, *tokens.shape[2:])


def head(params: Params, hidden: jax.Array) -> jax.Array:
    """Logits in float32 [..., V] of hidden states [..., E]; the output matrix is the embedding where they are tied."""
    weight = params["lm_head" if "lm_head" in params else "embed_tokens"]["weight"]
    precision = "highest" if weight.dtype == jnp.float32 else "default"
    return jnp.einsum("...e,ve->...v", hidden, weight, precision=precision, preferred_element_type=jnp.float32)


def logits(params: Params, config: ModelConfig, tokens: jax.Array, placement: Placement = Placement()) -> jax.Array:
    """Float32 logits [B, S, V] of every position: for tests and for comparing checkpoints, not for judging."""
    return head(params, forward(params, config, tokens, placement=placement)[0])


def abstract_params(config: ModelConfig, dtype: Any) -> Params:
    """The tree of parameters as `jax.ShapeDtypeStruct`s, without values."""
    return jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, dtype), _declared(config), is_leaf=_is_declared)


def param_axes(config: ModelConfig) -> Params:
    """The logical axes of each parameter, in the structure of `abstract_params`."""
    return jax.tree.map(lambda p: p.axes, _declared(config), is_leaf=_is_declared)


def param_shardings(config: ModelConfig, mesh: Mesh) -> Params:
    """The sharding of each parameter on `mesh`.

    Raises:
      InputError: the mesh does not divide a dimension (or the key/value heads).
    """
    sharding(mesh, ("kv_heads",), (config.num_kv_heads,))  # the weight may divide where its heads do not
    sharding(mesh, ("heads",), (config.num_heads,))
    named: dict[str, NamedSharding] = jax.tree.map(
        lambda p: sharding(mesh, p.axes, p.shape), _declared(config), is_leaf=_is_declared
    )
    return named


def init_params(config: ModelConfig, key: jax.Array, dtype: Any, deviation: float = 0.02) -> Params:
    """Random parameters: normal with this standard deviation, norms at one. Each leaf has its own key, by its name."""

    def leaf(path, declared):
        if len(declared.shape) - declared.axes.count("layer") == 1:
            return jnp.ones(declared.shape, dtype)
        own = jax.random.fold_in(key, zlib.crc32(jax.tree_util.keystr(path).encode()))
        return (jax.random.normal(own, declared.shape, jnp.float32) * deviation).astype(dtype)

    return jax.tree_util.tree_map_with_path(leaf, _declared(config), is_leaf=_is_declared)


@dataclasses.dataclass(frozen=True)
class _Declared:
    shape: tuple[int, ...]
    axes: LogicalAxes


def _is_declared(x: Any) -> bool:
    return isinstance(x, _Declared)


def _declared(config: ModelConfig) -> Params:
    """Shape and logical axes of every parameter, read off the modules; layers get a leading axis."""

    def tree(node: Any, stacked: bool) -> Any:
        if not isinstance(node, nnx.Variable):
            return {name: tree(child, stacked) for name, child in node.items()}
        shape, axes = node.get_value().shape, node.axes
        return _Declared((config.num_layers, *shape), ("layer", *axes)) if stacked else _Declared(shape, axes)

    def leaves(module: nnx.Module, stacked: bool = False) -> Params:
        return tree(nnx.state(module), stacked)

    words = (config.vocab_size, config.hidden_size)
    params = {
        "embed_tokens": leaves(Weight(words, ("vocab", "embed"))),
        "layers": leaves(Layer(config), stacked=True),
        "norm": leaves(RMSNorm(config.hidden_size, config.norm_epsilon)),
    }
    if not config.tied_embeddings:
        params["lm_head"] = leaves(Weight(words, ("vocab", "embed")))
    return params


def _adapted(params: Params) -> frozenset[str]:
    """The projections in which adapters lie beside the weight."""
    layers = params["layers"][0] if isinstance(params["layers"], list) else params["layers"]
    return frozenset(name for part in ("self_attn", "mlp") for name, leaf in layers[part].items() if "lora_a" in leaf)


@functools.cache
def _layer_graph(config: ModelConfig, adapted: frozenset[str]) -> nnx.GraphDef:
    return nnx.split(Layer(config, adapted))[0]


@functools.cache
def _norm_graph(config: ModelConfig) -> nnx.GraphDef:
    return nnx.split(RMSNorm(config.hidden_size, config.norm_epsilon))[0]
