"""The loss of a batch: negative log-likelihood of its target tokens, summed, without ever holding all logits.

Letters of the shapes: B rows, S tokens of a row, M targets of a row, E model width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from judgelm_jax.config import ModelConfig
from judgelm_jax.model import llama
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
    params: llama.Params, config: ModelConfig, batch: Batch, placement: llama.Placement, packed: bool, chunk: int
) -> jax.Array:
    """The sum over all targets of −log P(target | what is before it), in nats, float32.

    Only the hidden states that predict a target meet the output matrix, `chunk` of each row at a time; the backward pass
    computes the logits of a chunk again.

    Args:
      packed: rows hold several documents, which are kept apart. Else a row is one document from its start, and causal
        attention alone keeps padding out of it.
    """
    documents = llama.Documents(batch.positions, batch.segments) if packed else None
    hidden, _ = llama.forward(params, config, batch.tokens, placement=placement, documents=documents)
    predicting = jnp.take_along_axis(hidden, batch.target_places[..., None], axis=1)  # [B, M, E]
    predicting = constrain(predicting, placement.mesh, ("batch", "sequence", "width"))

    @jax.checkpoint
    def part(hidden: jax.Array, ids: jax.Array, mask: jax.Array) -> jax.Array:
        logits = constrain(llama.head(params, hidden), placement.mesh, ("batch", "sequence", "vocab"))
        chosen = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
        return jnp.sum((jax.nn.logsumexp(logits, axis=-1) - chosen) * mask)

    rows, targets = batch.target_ids.shape
    if targets <= chunk:
        return part(predicting, batch.target_ids, batch.target_mask)
    chunks = -(-targets // chunk)

    def cut(x: jax.Array) -> jax.Array:
        """[chunks, B, chunk, ...] of x [B, M, ...]."""
        x = jnp.pad(x, [(0, 0), (0, chunks * chunk - targets)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(rows, chunks, chunk, *x.shape[2:]).swapaxes(0, 1)

    parts = (cut(predicting), cut(batch.target_ids), cut(batch.target_mask))
    total, _ = jax.lax.scan(lambda total, x: (total + part(*x), None), jnp.float32(0), parts)
    return total
