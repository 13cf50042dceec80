"""The decoder (Touvron et al., arXiv 2302.13971): one forward pass for all families, for training, prefill, decoding and score
trees.

A layer is written once and scanned over the stacked parameters, where kinds of layers differ in groups of one of each. The
compute dtype is that of the parameters.

Letters of the shapes: B batch, S tokens, Q of them whose output is wanted, E model width, V words.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from judgelm_jax.devices.sharding import constrain
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import gradient_sums, matrix_product, quantization, rotary, views
from judgelm_jax.model.cache import Cache
from judgelm_jax.model.config import LayerKind, Limits, ModelConfig
from judgelm_jax.model.embedding import look_up
from judgelm_jax.model.layer_pattern import Stretch, kinds_of, stretches
from judgelm_jax.model.layers import NOT_ADAPTED, Adapted, ForwardPass, Layer, RMSNorm
from judgelm_jax.model.parameters import Params
from judgelm_jax.model.placement import DEFAULT, Placement

Carry = tuple[jax.Array, Cache | None]


def forward(
    params: Params,
    config: ModelConfig,
    tokens: jax.Array,
    view: views.View,
    cache: Cache | None = None,
    placement: Placement = DEFAULT,
) -> tuple[jax.Array, Cache]:
    """Runs the decoder over tokens.

    Args:
      params: as `parameters.abstract_params` describes them, with adapters where `lora.attach` put them, or `unstacked`; or
        with layers that are `gradient_sums.Summed`, for training without a cache.
      tokens: int32 [B, S], padded on the right.
      view: who sees whom, and whose output is wanted.
      cache: where the view writes keys and values, if anywhere.
      placement: mesh and attention backend.

    Returns:
      The residual stream after the last norm, [B, Q, E], of the tokens whose output the view wants in the last layer, and the
      cache with the keys and values of these tokens written (without one, nothing).
    """
    dtype = params["norm"]["weight"].dtype
    with jax.default_matmul_precision("highest" if dtype == jnp.float32 else "default"):
        x = constrain(_embedded(params, config, tokens), placement.mesh, ("batch", "sequence", "width"))
        if config.embedding_scale != 1:
            x *= jnp.asarray(config.embedding_scale, x.dtype)
        kinds = kinds_of(config, view.longest)
        passes = {
            kind: ForwardPass(
                view,
                rotary.rotation(config, view.positions, kind),
                Limits(kind.window, config.attention_softcap),
                placement,
            )
            for kind in dict.fromkeys(kinds)
        }
        layers, last = params["layers"], config.num_layers - 1
        last_pass = passes[kinds[last]]._replace(view=view.in_last_layer())
        graph = _layer_graph(config, _adapted(params))

        def run_layer(carry: Carry, weights: Params, layer: Any, run: ForwardPass) -> Carry:
            x, cache = carry
            return nnx.merge(graph, weights)(x, run, cache, layer)

        def weights_of(layer: Any) -> Params:
            return jax.tree.map(lambda stacked: stacked[layer], layers)

        carry: Carry = (x, cache)
        if isinstance(layers, gradient_sums.Summed):
            (kind,) = passes  # of several, the sums would need a scan for each
            x = gradient_sums.scan(lambda x, layer, weights: run_layer((x, None), weights, layer, passes[kind])[0], x, layers)
            carry = (x, cache)
        elif isinstance(layers, Sequence):
            # By index, so that a layer that is made when it is asked for goes before the next.
            for layer in range(config.num_layers):
                carry = _run_traced_once(
                    carry, layers[layer], layer, last_pass if layer == last else passes[kinds[layer]], graph
                )
        elif last_pass.view is view:
            step = _rematerialized(run_layer, placement.remat)
            for stretch in stretches(kinds):
                carry = _scan_slices(step, carry, stretch, layers, passes)
        else:  # the last layer is another program: the weights of those below are taken by index, as a slice would copy them
            for stretch in stretches(kinds[:last]):

                def run_group(carry: Carry, first: Any, kinds: tuple[LayerKind, ...] = stretch.kinds) -> tuple[Carry, None]:
                    for offset, kind in enumerate(kinds):
                        layer = first + offset if offset else first
                        carry = run_layer(carry, weights_of(layer), layer, passes[kind])
                    return carry, None

                carry, _ = jax.lax.scan(run_group, carry, _firsts(stretch))
            carry = run_layer(carry, weights_of(last), last, last_pass)
        x, cache = carry
        norm = nnx.merge(_norm_graph(config), params["norm"])
        return norm(x), {} if cache is None else cache


def _run_traced_once(carry: Carry, weights: Params, layer: int, run: ForwardPass, graph: nnx.GraphDef) -> Carry:
    """A layer whose cache, if any, is unstacked. Layers that differ in weights alone are one function, called for each: tracing
    it and writing it down for the compiler is half of the way to a compiled program of 32 layers."""
    x, cache = carry
    own = None if cache is None else kv_cache.alone(cache, layer)
    x, own = _run_alone(x, weights, own, run.view, run.rotation, run.limits, run.placement, graph)
    return x, None if cache is None else kv_cache.put_back(cache, layer, own)


@functools.partial(jax.jit, static_argnames=("limits", "placement", "graph"))
def _run_alone(
    x: jax.Array,
    weights: Params,
    cache: Cache | None,
    view: views.View,
    rotation: rotary.Rotation,
    limits: Limits,
    placement: Placement,
    graph: nnx.GraphDef,
) -> tuple[jax.Array, Any]:
    return nnx.merge(graph, weights)(x, ForwardPass(view, rotation, limits, placement), cache, 0)


def head(params: Params, config: ModelConfig, hidden: jax.Array) -> jax.Array:
    """Logits in float32 [..., V] of hidden states [..., E]; the output matrix is the embedding where they are tied."""
    table = params["lm_head" if "lm_head" in params else "embed_tokens"]
    with jax.default_matmul_precision("highest" if hidden.dtype == jnp.float32 else "default"):
        if config.int8:
            out = quantization.product(hidden, table["weight"], table["scale"])
        else:
            out = jnp.einsum("...e,ve->...v", hidden, table["weight"], preferred_element_type=jnp.float32)
    return out if config.logit_softcap is None else jnp.tanh(out / config.logit_softcap) * config.logit_softcap


def _embedded(params: Params, config: ModelConfig, tokens: jax.Array) -> jax.Array:
    """The vectors [B, S, E] of tokens [B, S]."""
    table = params["embed_tokens"]
    if config.int8:
        return quantization.rows(table["weight"], table["scale"], tokens).astype(params["norm"]["weight"].dtype)
    return look_up(table["weight"], tokens)


def logits(params: Params, config: ModelConfig, tokens: jax.Array, placement: Placement = DEFAULT) -> jax.Array:
    """Float32 logits [B, S, V] of every position: for tests and for comparing checkpoints, not for judging."""
    return head(params, config, forward(params, config, tokens, views.whole_rows(tokens), placement=placement)[0])


def _scan_slices(
    run_layer: Callable, carry: Carry, stretch: Stretch, layers: Params, passes: dict[LayerKind, ForwardPass]
) -> Carry:
    """Runs the layers of a stretch. A group's weights are slices of the stacked ones, so that their gradients are stacked."""
    period = len(stretch.kinds)

    def run_group(carry: Carry, scanned: tuple[Any, Params]) -> tuple[Carry, None]:
        first, group = scanned
        for offset, kind in enumerate(stretch.kinds):
            weights = group if period == 1 else jax.tree.map(lambda grouped: grouped[offset], group)  # noqa: B023
            carry = run_layer(carry, weights, first + offset if offset else first, passes[kind])
        return carry, None

    def groups(stacked: jax.Array) -> jax.Array:
        count = stretch.times * period
        own = stacked if len(stacked) == count else stacked[stretch.start : stretch.start + count]
        return own if period == 1 else own.reshape(stretch.times, period, *own.shape[1:])

    return jax.lax.scan(run_group, carry, (_firsts(stretch), jax.tree.map(groups, layers)))[0]


def _firsts(stretch: Stretch) -> jax.Array:
    """int32 [times]: the index of the first layer of each group."""
    groups, period = jnp.arange(stretch.times), len(stretch.kinds)
    return groups if (stretch.start, period) == (0, 1) else stretch.start + period * groups


def _rematerialized(run_layer: Callable, remat: str) -> Callable:
    if remat == "none":
        return run_layer
    policies = jax.checkpoint_policies
    kept = policies.save_from_both_policies(
        policies.dots_with_no_batch_dims_saveable, policies.save_only_these_names(matrix_product.NAME)
    )

    def checkpointed(carry: Carry, weights: Params, layer: Any, run: ForwardPass) -> Carry:
        body = functools.partial(run_layer, run=run)  # a scan needs no barriers
        return jax.checkpoint(body, policy={"full": None, "dots": kept}[remat], prevent_cse=False)(carry, weights, layer)

    return checkpointed


def _adapted(params: Params) -> Adapted:
    """The projections in which adapters lie beside the weight."""
    layers = params["layers"]
    if isinstance(layers, gradient_sums.Summed):
        return NOT_ADAPTED
    layers = layers[0] if isinstance(layers, Sequence) else layers
    projections = layers["self_attn"] | layers["mlp"]
    ranks = {name: leaf["lora_a"].shape[-2] for name, leaf in projections.items() if "lora_a" in leaf}
    return Adapted(frozenset(ranks), max(ranks.values(), default=0))


@functools.cache
def _layer_graph(config: ModelConfig, adapted: Adapted) -> nnx.GraphDef:
    return nnx.split(Layer(config, adapted))[0]


@functools.cache
def _norm_graph(config: ModelConfig) -> nnx.GraphDef:
    return nnx.split(RMSNorm(config))[0]
