"""The loss of a batch: negative log-likelihood of its target tokens, summed, without ever holding all logits.

Letters of the shapes: B rows, S tokens of a row, M targets of a row, E model width.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement
from judgelm_jax.sharding import constrain


class Batch(NamedTuple):
    """Rows of tokens and what shall be predicted in them; on devices, or a host's part of them as numpy arrays.

    `tokens`, `positions`, `segments`: int32 [B, S]; positions restart in each document, whose number (from 1; 0 is padding)
    stands in `segments`. `target_places` int32 [B, M]: the token *before* each target; `target_ids` int32 [B, M];
    `target_mask` float32 [B, M]: 1 for a target, 0 for filling.
    """

    tokens: jax.Array
    positions: jax.Array
    segments: jax.Array
    target_places: jax.Array
    target_ids: jax.Array
    target_mask: jax.Array


def total_loss(
    params: parameters.Params, config: ModelConfig, batch: Batch, placement: Placement, packed: bool, chunk: int
) -> jax.Array:
    """The sum over all targets of −log P(target | what is before it), in nats, float32.

    Only the hidden states that predict a target meet the output matrix, `chunk` of a device at a time; the backward pass
    computes the logits of a chunk again. Rows have very different numbers of targets, so each device first moves its own
    together, and the chunks behind them cost nothing.

    Args:
      packed: rows hold several documents, which are kept apart. Else a row is one document from its start, and causal
        attention alone keeps padding out of it.
    """
    view = views.Rows(batch.positions, batch.segments) if packed else views.whole_rows(batch.tokens)
    hidden, _ = decoder.forward(params, config, batch.tokens, view, placement=placement)
    mesh = placement.mesh
    groups = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    rows = batch.tokens.shape[0] // groups

    def of_a_device(x: jax.Array) -> jax.Array:
        """[groups, rows · columns, ...] of x [B, columns, ...]: what the rows of each device hold."""
        x = x.reshape(groups, rows * x.shape[1], *x.shape[2:])
        return constrain(x, mesh, ("batch", "sequence", "width")[: x.ndim])

    first = batch.tokens.shape[1] * (jnp.arange(batch.tokens.shape[0]) % rows)  # of each row, on its device
    mask, ids, places = map(of_a_device, (batch.target_mask, batch.target_ids, batch.target_places + first[:, None]))
    order = jnp.argsort(mask == 0, axis=1, stable=True)
    mask, ids, places = (jnp.take_along_axis(x, order, axis=1) for x in (mask, ids, places))
    predicting = jnp.take_along_axis(of_a_device(hidden), places[..., None], axis=1)

    @jax.checkpoint
    def part(hidden: jax.Array, ids: jax.Array, mask: jax.Array) -> jax.Array:
        logits = constrain(decoder.head(params, hidden), mesh, ("batch", "sequence", "vocab"))
        chosen = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
        return jnp.sum((jax.nn.logsumexp(logits, axis=-1) - chosen) * mask)

    chunk = min(chunk, mask.shape[1])
    chunks = -(-mask.shape[1] // chunk)

    def cut(x: jax.Array) -> jax.Array:
        """[chunks, groups, chunk, ...] of x [groups, targets, ...]."""
        x = jnp.pad(x, [(0, 0), (0, chunks * chunk - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(groups, chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

    def add(total: jax.Array, one: Any) -> tuple[jax.Array, None]:
        nothing = jnp.zeros_like(total)
        return total + jax.lax.cond(jnp.any(one[2] != 0), part, lambda *_: nothing, *one), None

    return jax.lax.scan(add, jnp.float32(0), tuple(map(cut, (predicting, ids, mask))))[0]
