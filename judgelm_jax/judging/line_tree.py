"""The exact probability of every score line, from one pass over their token tree.

```
prompt ··· ─┬─ 1 ─┬─ 0 ── ␣ ─┬─ 1 ─ ...      All nodes are computed at once behind the prompt's cache. A node sees the prompt
            │     └─ ␣ ─ ... └─ 2 ─ ...      and its own ancestors, and stands at the position that it has in its line; its
            └─ 2 ── ␣ ─ ...                  place in the cache is its number.
```
P(line) is the product of the probabilities of its tokens, newline included; other ways to tokenize the same text do not count.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from judgelm_jax.judging.score_tree import PROMPT_END_TOKENS, tokenize_lines
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement
from judgelm_jax.tokenization import Tokenizer

# Logits of so many nodes exist at once: [B, 16, V] floats.
_NODES_AT_ONCE = 16


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


def build(tokenizer: Tokenizer, lines: Sequence[str], response_prefix: str = "") -> LineTree:
    """The tree of these lines (each ends in a newline), in their order, behind a prompt and this beginning of its response.

    Raises:
      InputError: the tokenizer merges the end of the prompt with a line.
    """
    end_ids, tokenized = tokenize_lines(tokenizer, lines, response_prefix)
    longest = max(map(len, tokenized))
    nodes: dict[tuple[int, ...], int] = {(): -1}
    edges: dict[tuple[int, ...], int] = {}
    paths = []
    for ids in tokenized:
        begins = [tuple(ids[:end]) for end in range(1, len(ids) + 1)]
        for begin in begins[:-1]:
            nodes.setdefault(begin, len(nodes) - 1)
        paths.append([edges.setdefault(begin, len(edges)) for begin in begins])
    inner = [begin for begin in nodes if begin]
    ancestors = np.zeros((len(inner), len(inner)), bool)
    for begin in inner:
        for end in range(1, len(begin) + 1):
            ancestors[nodes[begin], nodes[begin[:end]]] = True
    return LineTree(
        tokens=np.array([begin[-1] for begin in inner], np.int32),
        depths=np.array([len(begin) - 1 for begin in inner], np.int32),
        ancestors=ancestors,
        edge_nodes=np.array([nodes[begin[:-1]] for begin in edges], np.int32),
        edge_tokens=np.array([begin[-1] for begin in edges], np.int32),
        paths=np.array([path + [len(edges)] * (longest - len(path)) for path in paths], np.int32),
        longest=longest,
        prompt_end=tuple(end_ids[-PROMPT_END_TOKENS:]),
    )


def log_probabilities(
    params: parameters.Params,
    config: ModelConfig,
    placement: Placement,
    tree: LineTree,
    cache: kv_cache.Cache,
    lengths: jax.Array,
    hidden: jax.Array,
) -> jax.Array:
    """float32 [B, lines]: the logarithm of the probability of each line behind each prompt.

    Args:
      cache: of the prompts, with a free slot for each node behind the longest.
      lengths: int32 [B], tokens in each prompt.
      hidden: [B, E], what `forward` returned at the last token of each prompt.
    """
    batch, count, slots = lengths.shape[0], len(tree.tokens), kv_cache.slots_of(cache)
    own = lengths[:, None] + jnp.arange(count)  # [B, nodes]: where each node lies in the cache
    # Slot t of a row holds the prompt below its length, and node t - length from there on.
    place = jnp.arange(slots) - lengths[:, None]  # [B, T]
    ancestors = jnp.asarray(tree.ancestors)[:, jnp.clip(place, 0, count - 1)].transpose(1, 0, 2)  # [B, nodes, T]
    mask = (place < 0)[:, None] | (ancestors & (place < count)[:, None])
    view = views.Continued(lengths[:, None] + jnp.asarray(tree.depths), own, mask)
    tokens = jnp.broadcast_to(jnp.asarray(tree.tokens), (batch, count))
    nodes, _ = decoder.forward(params, config, tokens, view, cache, placement)
    # The prompt's last token is the node before the first: index 0 from here on.
    states = jnp.concatenate([hidden[:, None], nodes], axis=1)
    edges = _edge_log_probabilities(params, tree, states)
    return jnp.pad(edges, ((0, 0), (0, 1)))[:, jnp.asarray(tree.paths)].sum(axis=-1)


def _edge_log_probabilities(params: parameters.Params, tree: LineTree, states: jax.Array) -> jax.Array:
    """float32 [B, edges], a group of nodes at a time so that the logits of all never exist at once."""
    groups = -(-states.shape[1] // _NODES_AT_ONCE)
    padded = jnp.pad(states, ((0, 0), (0, groups * _NODES_AT_ONCE - states.shape[1]), (0, 0)))
    grouped = padded.reshape(states.shape[0], groups, _NODES_AT_ONCE, -1).swapaxes(0, 1)
    # Of each node, the logits of its own next tokens only.
    children = np.zeros((groups * _NODES_AT_ONCE, int(np.bincount(tree.edge_nodes + 1).max())), np.int32)
    places = np.zeros(len(tree.edge_nodes), np.int32)
    filled: dict[int, int] = {}
    for edge, (node, token) in enumerate(zip(tree.edge_nodes + 1, tree.edge_tokens, strict=True)):
        place = filled.get(node, 0)
        filled[node] = place + 1
        children[node, place] = token
        places[edge] = place

    def group(inputs):
        states, tokens = inputs  # [B, 16, E], [16, children]
        logits = decoder.head(params, states)
        chosen = jnp.take_along_axis(logits, jnp.broadcast_to(tokens, (logits.shape[0], *tokens.shape)), axis=2)
        return chosen - jax.nn.logsumexp(logits, axis=2, keepdims=True)

    out = jax.lax.map(group, (grouped, jnp.asarray(children).reshape(groups, _NODES_AT_ONCE, -1)))  # [groups, B, 16, children]
    out = out.swapaxes(0, 1).reshape(states.shape[0], groups * _NODES_AT_ONCE, -1)
    return out[:, jnp.asarray(tree.edge_nodes + 1), jnp.asarray(places)]
