"""Who sees whom in one forward pass. A pass brings its view along; a layer asks it and knows no pass by name.

| view | for | a token sees |
| --- | --- | --- |
| `Rows` | training, comparing checkpoints | the tokens before it in its row, or in its document of the row |
| `Continued` | decoding, trees of score lines | the slots of a cache that its mask names |
| `PromptTree` | prefill | the tokens before it in its prompt, whose prefix may be that of other prompts, too |

Views are pytrees of arrays, made inside of a compiled program or handed to it. What differs from layer to layer (a window of
attention) is no matter of a view: a layer hands it to `attend`.

Letters of the shapes: B rows, S tokens of a row, Q of them that have a query, P prompts packed in a row, T tokens of the
longest prompt (or slots of a cache), H query heads, K key/value heads, D width of a head.
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from judgelm_jax.devices.sharding import constrain
from judgelm_jax.model import attention
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model.config import NO_LIMITS, Limits
from judgelm_jax.model.placement import Placement

Attended = tuple[jax.Array, kv_cache.Cache | None]


class View(Protocol):
    """What a decoder asks of a view."""

    @property
    def positions(self) -> jax.Array:
        """int32 [B or 1, S]: the position of each token, by which the rotary angles turn."""

    @property
    def longest(self) -> int:
        """No token sees more than so many, itself among them: a wider window of attention is none."""

    def in_last_layer(self) -> "View":
        """The view of the last layer, where the output of fewer tokens may be wanted; itself where that of all is."""

    def queries(self, x: jax.Array) -> jax.Array:
        """[B, Q, ...]: of x [B, S, ...], the entries of the tokens whose output is wanted."""

    def attend(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        cache: kv_cache.Cache | None,
        layer: Any,
        placement: Placement,
        limits: Limits = NO_LIMITS,
    ) -> Attended:
        """Attention of the queries over all that they see.

        Args:
          q: [B, Q, H, D]; k, v: [B, S, K, D]: of the tokens of this pass, rotated.
          cache: where keys and values of this layer are written, if anywhere.
          layer: its index, an int or an int32 scalar.
          limits: the layer's window, counted in positions, and its soft cap.

        Returns:
          The values that each query gathered, [B, Q, H · D], and the cache.
        """


class Rows(NamedTuple):
    """Tokens in order from the start of their rows.

    `positions`: int32 [B or 1, S]. `segments`: int32 [B, S], the number of each token's document, whose positions start at 0;
    documents do not see each other. None: a row is one document. A cache of S slots or more is begun.
    """

    positions: jax.Array
    segments: jax.Array | None = None

    @property
    def longest(self) -> int:
        return self.positions.shape[1]

    def in_last_layer(self) -> "Rows":
        return self

    def queries(self, x: jax.Array) -> jax.Array:
        return x

    def attend(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        cache: kv_cache.Cache | None,
        layer: Any,
        placement: Placement,
        limits: Limits = NO_LIMITS,
    ) -> Attended:
        mesh = placement.mesh
        q, k, v = _on_mesh(q, k, v, mesh)
        cache = None if cache is None else kv_cache.begin(cache, layer, k, v)
        out = attention.attend(q, k, v, None, placement.attention, self.segments, mesh=mesh, limits=limits)
        return _merged_heads(out, q.shape[0]), cache


class Continued(NamedTuple):
    """Tokens that continue a cache.

    `positions`: int32 [B, S]. `slots`: int32 [B, S], where in the cache keys and values go (outside of it: nowhere). `mask`:
    bool [B, S, T], which of the first T slots each token sees, its own among them. `used`: int32 [B], where each row has one
    token that sees the first slots up to its own: how many these are. `slot_positions`: int32 [B, T], the position of the token
    in each slot, which a window goes by; None: slot t holds position t.
    """

    positions: jax.Array
    slots: jax.Array
    mask: jax.Array
    used: jax.Array | None = None
    slot_positions: jax.Array | None = None

    @property
    def longest(self) -> int:
        return self.mask.shape[-1]

    def in_last_layer(self) -> "Continued":
        return self

    def queries(self, x: jax.Array) -> jax.Array:
        return x

    def attend(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        cache: kv_cache.Cache | None,
        layer: Any,
        placement: Placement,
        limits: Limits = NO_LIMITS,
    ) -> Attended:
        if cache is None:
            raise ValueError("tokens that continue a cache need one: give it to the forward pass")
        mesh = placement.mesh
        q, k, v = _on_mesh(q, k, v, mesh)
        cache = kv_cache.write(cache, layer, self.slots, k, v)
        keys, values, scales, index = kv_cache.of_layer(cache, layer)
        mask = self.mask
        if limits.window is not None:
            slots = jnp.arange(mask.shape[-1])[None] if self.slot_positions is None else self.slot_positions
            mask &= self.positions[:, :, None] - slots[:, None] < limits.window
        out = attention.attend_cache(q, keys, values, index, mask, self.used, placement.attention, mesh, limits, scales)
        return _merged_heads(out, q.shape[0]), cache


class PromptTree(NamedTuple):
    """Prompts, P in each row of S tokens, whose common prefixes are there once: every row is a tree of tokens.

    Everything but attention is computed for the tokens of the tree. For attention, and in the cache, each prompt has a row of
    T tokens of its own, as if it were alone. A cache of B · P rows with T slots or more is begun. Of each prompt, only the
    output at its end is wanted, so the last layer computes no more than keys and values for the other tokens.

    `indices`: int32 [B, P, T], where in the row the tokens of each prompt are (anything behind a prompt's end). `shared`: int32
    [B, P], the length of the prefix that a prompt before it has, too; T for a prompt that is padding. `ends`: int32 [B, P],
    the index of its last token. `positions`: int32 [B, S], of each token of the row in its prompts. `sources`: int32 [B, S],
    prompt · T + position, by the first of the prompts that have the token.
    """

    indices: jax.Array
    shared: jax.Array
    ends: jax.Array
    positions: jax.Array
    sources: jax.Array

    @property
    def longest(self) -> int:
        return self.indices.shape[-1]

    def in_last_layer(self) -> "PromptEnds":
        return PromptEnds(self)

    def queries(self, x: jax.Array) -> jax.Array:
        return x

    def attend(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        cache: kv_cache.Cache | None,
        layer: Any,
        placement: Placement,
        limits: Limits = NO_LIMITS,
    ) -> Attended:
        rows, mesh = q.shape[0], placement.mesh
        k, v = (self.of_prompts(x) for x in (k, v))
        q, k, v = _on_mesh(self.of_prompts(q), k, v, mesh)
        cache = None if cache is None else kv_cache.begin(cache, layer, k, v)
        spans = jnp.concatenate([self.shared.reshape(-1, 1), self.last_positions() + 1], axis=1)
        out = attention.attend(q, k, v, None, placement.attention, spans=spans, mesh=mesh, limits=limits)
        return take(_merged_heads(out, rows), self.sources), cache

    def of_prompts(self, x: jax.Array) -> jax.Array:
        """[B · P, T, ...]: of the tokens x [B, S, ...], those of each prompt."""
        rows, prompts, length = self.indices.shape
        flat = x.reshape(*x.shape[:2], -1)  # a gather of whole vectors is three times as fast on CPUs
        return take(flat, self.indices.reshape(rows, -1)).reshape(rows * prompts, length, *x.shape[2:])

    def last_positions(self) -> jax.Array:
        """int32 [B · P, 1]: the position of each prompt's last token."""
        return take(self.positions, self.ends).reshape(-1, 1)


class PromptEnds(NamedTuple):
    """The ends of the prompts of a tree: its last layer."""

    tree: PromptTree

    @property
    def positions(self) -> jax.Array:
        return self.tree.positions

    @property
    def longest(self) -> int:
        return self.tree.longest

    def in_last_layer(self) -> "PromptEnds":
        return self

    def queries(self, x: jax.Array) -> jax.Array:
        return take(x, self.tree.ends)

    def attend(
        self,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        cache: kv_cache.Cache | None,
        layer: Any,
        placement: Placement,
        limits: Limits = NO_LIMITS,
    ) -> Attended:
        rows, mesh = q.shape[0], placement.mesh
        k, v = (self.tree.of_prompts(x) for x in (k, v))
        q, k, v = _on_mesh(q.reshape(-1, 1, *q.shape[2:]), k, v, mesh)
        cache = None if cache is None else kv_cache.begin(cache, layer, k, v)
        ends = self.tree.last_positions()
        mask = attention.cache_mask(ends, k.shape[2])
        if limits.window is not None:
            mask &= jnp.arange(k.shape[2]) > ends[:, :, None] - limits.window
            limits = limits._replace(window=None)
        out = attention.attend(q, k, v, mask, placement.attention, mesh=mesh, limits=limits)
        return _merged_heads(out, rows), cache


def whole_rows(tokens: jax.Array) -> Rows:
    """Rows of one document each, padded on the right: what follows a row's last token changes nothing before it."""
    return Rows(jnp.arange(tokens.shape[1])[None])


def in_order(positions: jax.Array, slots: int) -> Continued:
    """Tokens int32 [B, S] that continue their rows: each is written to the slot of its position and sees all slots up to it,
    within the first `slots`."""
    single = positions[:, 0] if positions.shape[1] == 1 else None
    used = None if single is None else jnp.where(single < slots, single + 1, 1)  # behind all slots: a row that has ended
    return Continued(positions, positions, attention.cache_mask(positions, slots), used)


def take(x: jax.Array, indices: jax.Array) -> jax.Array:
    """[B, N, ...]: of each row of x [B, S, ...], the entries at `indices` int32 [B, N]."""
    return jnp.take_along_axis(x, indices.reshape(*indices.shape, *[1] * (x.ndim - 2)), axis=1)


def _on_mesh(q: jax.Array, k: jax.Array, v: jax.Array, mesh: Mesh | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q [B, Q, H, D] and k, v [B, K, T, D], as they lie in a cache."""
    q = constrain(q, mesh, ("batch", "sequence", "heads", "head_dim"))
    k, v = (constrain(x.swapaxes(1, 2), mesh, ("batch", "kv_heads", "sequence", "head_dim")) for x in (k, v))
    return q, k, v


def _merged_heads(out: jax.Array, rows: int) -> jax.Array:
    """[rows, ..., H · D] of [B, S, H, D]."""
    return out.reshape(rows, -1, out.shape[2] * out.shape[3])
