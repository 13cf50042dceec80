"""The loss of a batch: negative log-likelihood of its target tokens, summed, without ever holding all logits.

Letters of the shapes: B rows, S tokens of a row, M targets of a row, E model width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from judgelm_jax.devices.sharding import constrain
from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement
from judgelm_jax.training.chunks import Pieces, add_up


class Batch(NamedTuple):
    """Rows of tokens and what shall be predicted in them; on devices, or a host's part of them as numpy arrays.

    `tokens`, `positions`, `segments`: int32 [B, S]; positions restart in each document, whose number (from 1; 0 is padding)
    is in `segments`. `target_indices` int32 [B, M]: the token *before* each target; `target_ids` int32 [B, M];
    `target_mask` float32 [B, M]: 1 for a target, 0 for padding.
    """

    tokens: jax.Array
    positions: jax.Array
    segments: jax.Array
    target_indices: jax.Array
    target_ids: jax.Array
    target_mask: jax.Array


def total_loss(
    params: parameters.Params, config: ModelConfig, batch: Batch, placement: Placement, packed: bool, chunk: int
) -> jax.Array:
    """The sum over all targets of −log P(target | what is before it), in nats, float32; arguments as of `row_losses`."""
    return row_losses(params, config, batch, placement, packed, chunk).sum()


def row_losses(
    params: parameters.Params, config: ModelConfig, batch: Batch, placement: Placement, packed: bool, chunk: int
) -> jax.Array:
    """The sum over the targets of each row of −log P(target | what is before it), in nats, float32 [B].

    Only the hidden states that predict a target meet the output matrix, `chunk` of a device at a time; the backward pass
    computes the logits of a chunk again. Rows have very different numbers of targets, so each device first moves its own
    together, and the chunks behind them cost nothing.

    Args:
      packed: rows hold several documents, each a segment. Else a row is one document from its start, and causal attention
        alone keeps padding out of it.
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

    own = jnp.arange(batch.tokens.shape[0])[:, None] % rows  # the number of each row on its device
    indices, owners = batch.target_indices + batch.tokens.shape[1] * own, jnp.broadcast_to(own, batch.target_ids.shape)
    targets = [of_a_device(x) for x in (batch.target_mask, batch.target_ids, owners, indices)]
    order = jnp.argsort(targets[0] == 0, axis=1, stable=True)
    mask, ids, owners, indices = (jnp.take_along_axis(x, order, axis=1) for x in targets)
    predicting = jnp.take_along_axis(of_a_device(hidden), indices[..., None], axis=1)

    def part(output: parameters.Params, piece: Pieces) -> jax.Array:
        """What C targets of one device, whose leaves are [C, ...], add to its rows: float32 [rows]."""
        logits = constrain(decoder.head(output, config, piece.hidden), mesh, ("sequence", "vocab"))
        chosen = jnp.take_along_axis(logits, piece.ids[..., None], axis=-1)[..., 0]
        return jax.ops.segment_sum((jax.nn.logsumexp(logits, axis=-1) - chosen) * piece.mask, piece.owners, rows)

    chunk = min(chunk, mask.shape[1])
    chunks = -(-mask.shape[1] // chunk)

    def cut(x: jax.Array) -> jax.Array:
        """[chunks, groups, chunk, ...] of x [groups, targets, ...]."""
        x = jnp.pad(x, [(0, 0), (0, chunks * chunk - x.shape[1])] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(groups, chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

    name = "lm_head" if "lm_head" in params else "embed_tokens"
    pieces = Pieces(*map(cut, (predicting, ids, owners, mask)))
    return add_up(part, mesh, rows, {name: params[name]}, pieces).reshape(-1)
