"""The exact probability of every score line, from one pass over their token tree.

```
prompt ··· ─┬─ 1 ─┬─ 0 ── ␣ ─┬─ 1 ─ ...      Nodes are computed behind the prompt's cache, many at once. A node sees the prompt
            │     └─ ␣ ─ ... └─ 2 ─ ...      and its own ancestors, at the position that it has in its line; its index in
            └─ 2 ── ␣ ─ ...                  the cache is its number.
```
P(line) is the product of the probabilities of its tokens, newline included; other ways to tokenize the same text do not count.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from judgelm_jax.judging.constrained_decoding import tokenize_lines
from judgelm_jax.judging.line_parts import end_of_prompts
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement
from judgelm_jax.prompts import prompts
from judgelm_jax.tokens.tokenization import Tokenizer

# Logits of this many nodes exist at once: [B, 16, V] floats.
_NODES_AT_ONCE = 16
# Attention scores between nodes and slots of the cache that exist at once, for each head and device. Of larger trees a part of
# the nodes is computed at a time; ancestors come before their descendants.
_PAIRS_AT_ONCE = 1 << 22


@dataclasses.dataclass(frozen=True)
class LineTree:
    """A tree of token sequences. Its nodes are the tokens behind which another one may come; -1 is the prompt itself.

    `tokens`, `depths`: int32 [nodes]; `ancestors`: bool [nodes, nodes], true where the second is the first or an ancestor of
    it. `edge_nodes`, `edge_tokens`: int32 [edges], a token and the node behind which it comes. `paths`: int32
    [lines, longest], the edges of each line, filled up with the number of edges. `longest` and `prompt_end` as in `ScoreTree`.
    """

    tokens: np.ndarray
    depths: np.ndarray
    ancestors: np.ndarray
    edge_nodes: np.ndarray
    edge_tokens: np.ndarray
    paths: np.ndarray
    longest: int
    prompt_end: tuple[int, ...]

    @property
    def slots(self) -> int:
        """Of the cache, behind a prompt."""
        return len(self.tokens)


def build(tokenizer: Tokenizer, lines: Sequence[str], end: str = prompts.END) -> LineTree:
    """The tree of these lines (each ends in a newline), in their order, behind a prompt that ends in this text.

    Raises:
      InputError: the tokenizer merges the end of the prompt with a line.
    """
    return of_sequences(tokenize_lines(tokenizer, lines, end), end_of_prompts(tokenizer, end))


def of_sequences(tokenized: Sequence[Sequence[int]], prompt_end: tuple[int, ...]) -> LineTree:
    """The tree of these sequences of ids, each behind a prompt that ends in these."""
    longest = max(map(len, tokenized))
    nodes: dict[tuple[int, ...], int] = {(): -1}
    edges: dict[tuple[int, ...], int] = {}
    paths = []
    for ids in tokenized:
        begins = [tuple(ids[:length]) for length in range(1, len(ids) + 1)]
        for begin in begins[:-1]:
            nodes.setdefault(begin, len(nodes) - 1)
        paths.append([edges.setdefault(begin, len(edges)) for begin in begins])
    inner = [begin for begin in nodes if begin]
    ancestors = np.zeros((len(inner), len(inner)), bool)
    for begin in inner:
        for length in range(1, len(begin) + 1):
            ancestors[nodes[begin], nodes[begin[:length]]] = True
    return LineTree(
        tokens=np.array([begin[-1] for begin in inner], np.int32),
        depths=np.array([len(begin) - 1 for begin in inner], np.int32),
        ancestors=ancestors,
        edge_nodes=np.array([nodes[begin[:-1]] for begin in edges], np.int32),
        edge_tokens=np.array([begin[-1] for begin in edges], np.int32),
        paths=np.array([path + [len(edges)] * (longest - len(path)) for path in paths], np.int32),
        longest=longest,
        prompt_end=prompt_end,
    )


def log_probabilities(
    params: parameters.Params,
    config: ModelConfig,
    placement: Placement,
    tree: LineTree,
    cache: kv_cache.Cache,
    lengths: jax.Array,
    hidden: jax.Array,
) -> tuple[jax.Array, kv_cache.Cache]:
    """float32 [B, lines]: the logarithm of the probability of each line behind each prompt; and the cache, whose slots behind
    the prompts hold the nodes of the tree.

    Args:
      cache: of the prompts, with a free slot for each node behind the longest.
      lengths: int32 [B], tokens in each prompt.
      hidden: [B, E], what `forward` returned at the last token of each prompt.
    """
    batch, count, slots = lengths.shape[0], len(tree.tokens), kv_cache.slots_of(cache)
    if count == 0:  # each line is one token, and what follows the prompt says all
        return _of_lines(tree, _edge_log_probabilities(params, config, tree, hidden[:, None])), cache
    devices = 1 if placement.mesh is None else placement.mesh.shape["data"] * placement.mesh.shape["fsdp"]
    at_once = min(count, max(1, _PAIRS_AT_ONCE // (-(-batch // devices) * slots)))
    parts = -(-count // at_once)
    # Slot t of a row holds the prompt below its length, and node t - length from there on.
    node = jnp.arange(slots) - lengths[:, None]  # [B, T]
    # The position of what each slot holds: those of nodes are as deep in their lines as in the row.
    depths = jnp.asarray(tree.depths)[jnp.clip(node, 0, count - 1)]
    slot_positions = jnp.where(node < 0, jnp.arange(slots), lengths[:, None] + depths)

    def compute(cache, nodes):
        number, token, depth, ancestors = nodes  # of n nodes; ancestors [n, nodes]
        own = jnp.where(number < count, lengths[:, None] + number, slots)  # [B, n]: where each lies in the cache
        above = ancestors[:, jnp.clip(node, 0, count - 1)].transpose(1, 0, 2)  # [B, n, T]
        mask = (node < 0)[:, None] | (above & (node < count)[:, None])
        view = views.Continued(lengths[:, None] + depth, own, mask, slot_positions=slot_positions)
        states, cache = decoder.forward(params, config, jnp.broadcast_to(token, own.shape), view, cache, placement)
        return cache, states

    def split(values):
        padded = np.pad(values, [(0, parts * at_once - count), *[(0, 0)] * (values.ndim - 1)])
        return jnp.asarray(padded.reshape(parts, at_once, *values.shape[1:]))

    numbers = jnp.arange(parts * at_once).reshape(parts, at_once)  # those of padding are behind all nodes
    inputs = (numbers, split(tree.tokens), split(tree.depths), split(tree.ancestors))
    if parts == 1:
        cache, states = compute(cache, jax.tree.map(lambda x: x[0], inputs))
    else:
        cache, states = jax.lax.scan(compute, cache, inputs)  # states [parts, B, n, E]
        states = states.swapaxes(0, 1).reshape(batch, parts * at_once, -1)[:, :count]
    # The prompt's last token is the node before the first: index 0 from here on.
    edges = _edge_log_probabilities(params, config, tree, jnp.concatenate([hidden[:, None], states], axis=1))
    return _of_lines(tree, edges), cache


def _of_lines(tree: LineTree, edges: jax.Array) -> jax.Array:
    """float32 [B, lines], from the logarithms of the edges [B, edges]."""
    return jnp.pad(edges, ((0, 0), (0, 1)))[:, jnp.asarray(tree.paths)].sum(axis=-1)


def _edge_log_probabilities(params: parameters.Params, config: ModelConfig, tree: LineTree, states: jax.Array) -> jax.Array:
    """float32 [B, edges], a group of nodes at a time so that the logits of all never exist at once."""
    groups = -(-states.shape[1] // _NODES_AT_ONCE)
    padded = jnp.pad(states, ((0, 0), (0, groups * _NODES_AT_ONCE - states.shape[1]), (0, 0)))
    grouped = padded.reshape(states.shape[0], groups, _NODES_AT_ONCE, -1).swapaxes(0, 1)
    # Of each node, the logits of its own next tokens only.
    children = np.zeros((groups * _NODES_AT_ONCE, int(np.bincount(tree.edge_nodes + 1).max())), np.int32)
    child_of_edge = np.zeros(len(tree.edge_nodes), np.int32)
    filled: dict[int, int] = {}
    for edge, (node, token) in enumerate(zip(tree.edge_nodes + 1, tree.edge_tokens, strict=True)):
        child = filled.get(node, 0)
        filled[node] = child + 1
        children[node, child] = token
        child_of_edge[edge] = child

    def group(inputs):
        states, tokens = inputs  # [B, 16, E], [16, children]
        logits = decoder.head(params, config, states)
        chosen = jnp.take_along_axis(logits, jnp.broadcast_to(tokens, (logits.shape[0], *tokens.shape)), axis=2)
        return chosen - jax.nn.logsumexp(logits, axis=2, keepdims=True)

    out = jax.lax.map(group, (grouped, jnp.asarray(children).reshape(groups, _NODES_AT_ONCE, -1)))  # [groups, B, 16, children]
    out = out.swapaxes(0, 1).reshape(states.shape[0], groups * _NODES_AT_ONCE, -1)
    return out[:, jnp.asarray(tree.edge_nodes + 1), jnp.asarray(child_of_edge)]
