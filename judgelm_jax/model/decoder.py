"""The LLaMA decoder (Touvron et al., arXiv 2302.13971): one forward pass for training, prefill, decoding and score trees.

A layer is written once and scanned over the stacked parameters. The compute dtype is that of the parameters.

Letters of the shapes: B batch, S tokens, Q of them whose output is wanted, E model width, V words.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from judgelm_jax.model import rotary, views
from judgelm_jax.model.cache import Cache
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.embedding import look_up
from judgelm_jax.model.layers import Adapted, ForwardPass, Layer, RMSNorm
from judgelm_jax.model.parameters import Params
from judgelm_jax.model.placement import DEFAULT, Placement
from judgelm_jax.sharding import constrain


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
      params: as `parameters.abstract_params` describes them, with adapters where `lora.attach` put them, or `unstacked`.
      tokens: int32 [B, S], padded on the right.
      view: who sees whom, and whose output is wanted.
      cache: where the view writes keys and values, if anywhere.
      placement: mesh and attention backend.

    Returns:
      The residual stream after the last norm, [B, Q, E], of the tokens whose output the view wants in the last layer, and the
      cache with the keys and values of these tokens written (without one, nothing).
    """
    embedding = params["embed_tokens"]["weight"]
    with jax.default_matmul_precision("highest" if embedding.dtype == jnp.float32 else "default"):
        x = constrain(look_up(embedding, tokens), placement.mesh, ("batch", "sequence", "width"))
        run = ForwardPass(view, rotary.rotation(config, view.positions), placement)
        last_run = run._replace(view=view.in_last_layer())
        layers, last = params["layers"], config.num_layers - 1
        graph = _layer_graph(config, _adapted(params))

        def run_layer(carry, scanned, run=run):
            x, cache = carry
            layer, weights = scanned
            return nnx.merge(graph, weights)(x, run, cache, layer), None

        def run_layer_at(carry, layer, run=run):
            return run_layer(carry, (layer, jax.tree.map(lambda stacked: stacked[layer], layers)), run)

        carry = (x, cache)
        if isinstance(layers, Sequence):
            for layer in range(
                config.num_layers
            ):  # by index, so that one that is made when it is asked for goes before the next
                carry, _ = run_layer(carry, (layer, layers[layer]), last_run if layer == last else run)
        elif last_run.view is view:
            step = _rematerialized(run_layer, placement.remat)
            carry, _ = jax.lax.scan(step, carry, (jnp.arange(config.num_layers), layers))
        else:  # the last layer is another program: the weights of those below are taken by index, as a slice would copy them
            carry, _ = jax.lax.scan(run_layer_at, carry, jnp.arange(last))
            carry, _ = run_layer_at(carry, last, last_run)
        x, cache = carry
        norm = nnx.merge(_norm_graph(config), params["norm"])
        return norm(x), {} if cache is None else cache


def head(params: Params, hidden: jax.Array) -> jax.Array:
    """Logits in float32 [..., V] of hidden states [..., E]; the output matrix is the embedding where they are tied."""
    weight = params["lm_head" if "lm_head" in params else "embed_tokens"]["weight"]
    precision = "highest" if weight.dtype == jnp.float32 else "default"
    return jnp.einsum("...e,ve->...v", hidden, weight, precision=precision, preferred_element_type=jnp.float32)


def logits(params: Params, config: ModelConfig, tokens: jax.Array, placement: Placement = DEFAULT) -> jax.Array:
    """Float32 logits [B, S, V] of every position: for tests and for comparing checkpoints, not for judging."""
    return head(params, forward(params, config, tokens, views.whole_rows(tokens), placement=placement)[0])


def _rematerialized(run_layer: Callable, remat: str) -> Callable:
    if remat == "none":
        return run_layer
    policies = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
    return jax.checkpoint(run_layer, policy=policies[remat], prevent_cse=False)  # a scan needs no barriers


def _adapted(params: Params) -> Adapted:
    """The projections in which adapters lie beside the weight."""
    layers = params["layers"][0] if isinstance(params["layers"], Sequence) else params["layers"]
    projections = layers["self_attn"] | layers["mlp"]
    ranks = {name: leaf["lora_a"].shape[-2] for name, leaf in projections.items() if "lora_a" in leaf}
    return Adapted(frozenset(ranks), max(ranks.values(), default=0))


@functools.cache
def _layer_graph(config: ModelConfig, adapted: Adapted) -> nnx.GraphDef:
    return nnx.split(Layer(config, adapted))[0]


@functools.cache
def _norm_graph(config: ModelConfig) -> nnx.GraphDef:
    return nnx.split(RMSNorm(config))[0]
