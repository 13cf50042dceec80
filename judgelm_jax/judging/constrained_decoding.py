"""The score lines as token sequences, and decoding that can write nothing else.

The lines are those of the grammar in `score_lines`, tokenized as they follow a prompt. Their tree is folded: nodes with
equal continuations are one, so that the 12,544 lines of a pair become a few dozen nodes.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.judging.line_parts import LineParts, end_of_prompts
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement
from judgelm_jax.prompts import prompts
from judgelm_jax.tokens.tokenization import Tokenizer

Position = tuple[int, tuple[int, ...]]
NOT_FINITE = -2  # in place of a token: the model computed logits that are no numbers


@dataclasses.dataclass(frozen=True)
class ScoreTree:
    """A folded tree of token sequences.

    `tokens` and `children` are int32 [nodes, choices]: the token of each choice in ascending order (-1: no such choice) and
    the node that it leads to. Node 0 is where every line has ended; `root` is where it begins. `longest` is the most tokens
    that a line has, its newline included; `prompt_end` the ids with which every prompt must end.
    """

    tokens: np.ndarray
    children: np.ndarray
    root: int
    longest: int
    prompt_end: tuple[int, ...]

    @property
    def slots(self) -> int:
        """Of the cache, behind a prompt."""
        return self.longest


def build(tokenizer: Tokenizer, lines: Iterable[str], end: str = prompts.END) -> ScoreTree:
    """Tokenizes lines behind a prompt that ends in this text, and folds their tree.

    Raises:
      InputError: the tokenizer merges the end of the prompt with a line, so that no line could follow a prompt.
    """
    tokenized = tokenize_lines(tokenizer, lines, end)
    trie: dict = {}
    for ids in tokenized:
        node = trie
        for token in ids:
            node = node.setdefault(token, {})
    nodes: dict[tuple, int] = {(): 0}

    def fold(node: dict) -> int:
        signature = tuple(sorted((token, fold(child)) for token, child in node.items()))
        return nodes.setdefault(signature, len(nodes))

    return _as_arrays(nodes, fold(trie), max(map(len, tokenized)), end_of_prompts(tokenizer, end))


def compose(parts: LineParts, count: int) -> ScoreTree:
    """The folded tree of all lines of `count` scores, which are not listed."""

    def words(part: int) -> Sequence[tuple[int, ...]]:
        return parts.first if part == 0 else parts.later if part < count else (parts.newline,)

    # Where in a line one may be: a part and the tokens of it so far. Behind a whole word also at the start of the next one.
    def with_next(positions: Iterable[Position]) -> frozenset[Position]:
        found: set[Position] = set()
        for part, begun in positions:
            found.add((part, begun))
            if begun in words(part):
                found.add((part + 1, ()))
        return frozenset(found)

    nodes: dict[tuple, int] = {(): 0}
    numbers: dict[frozenset[Position], int] = {frozenset([(count, parts.newline), (count + 1, ())]): 0}

    def fold(state: frozenset[Position]) -> int:
        if state not in numbers:
            moves: dict[int, set[Position]] = {}
            for part, begun in state:
                for word in words(part):
                    if len(word) > len(begun) and word[: len(begun)] == begun:
                        moves.setdefault(word[len(begun)], set()).add((part, word[: len(begun) + 1]))
            signature = tuple(sorted((token, fold(with_next(after))) for token, after in moves.items()))
            numbers[state] = nodes.setdefault(signature, len(nodes))
        return numbers[state]

    for part in range(count, -1, -1):  # from the end on, so that no chain of calls is longer than a word
        root = fold(frozenset([(part, ())]))
    longest = max(map(len, parts.first)) + (count - 1) * max(map(len, parts.later)) + len(parts.newline)
    return _as_arrays(nodes, root, longest, parts.prompt_end)


def _as_arrays(nodes: dict[tuple, int], root: int, longest: int, prompt_end: tuple[int, ...]) -> ScoreTree:
    choices = max(map(len, nodes))
    tokens = np.full((len(nodes), choices), -1, np.int32)
    children = np.zeros((len(nodes), choices), np.int32)
    for signature, number in nodes.items():
        for choice, (token, child) in enumerate(signature):
            tokens[number, choice], children[number, choice] = token, child
    return ScoreTree(tokens, children, root, longest, prompt_end)


def tokenize_lines(tokenizer: Tokenizer, lines: Iterable[str], end: str) -> list[list[int]]:
    """The ids of each line behind the text with which a prompt ends.

    Raises:
      InputError: the tokenizer merges the end of the prompt with a line, so that no line could follow a prompt; or it cannot
        write a line.
    """
    listed, end_ids = list(lines), tokenizer.encode(end)
    tokenized = tokenizer.encode_batch([end + line for line in listed])
    for line, ids in zip(listed, tokenized, strict=True):
        if ids[: len(end_ids)] != end_ids:
            raise InputError(
                f"the tokenizer merges the end of the prompt, {end[-20:]!r}, with the verdict {line.strip()!r}; a template of "
                "yours must not end in a space or within a word, else take a model with another tokenizer"
            )
        if tokenizer.decode(ids[len(end_ids) :]).split() != line.split():
            raise InputError(f"the tokenizer cannot write the verdict {line.strip()!r}; choose words that it knows")
    return [ids[len(end_ids) :] for ids in tokenized]


def decode(
    params: parameters.Params,
    config: ModelConfig,
    placement: Placement,
    tree: ScoreTree,
    cache: kv_cache.Cache,
    lengths: jax.Array,
    logits: jax.Array,
    keys: jax.Array,
    temperature: jax.Array | None,
) -> jax.Array:
    """Walks the tree: at each node the most likely of its tokens, or one sampled among them.

    Args:
      cache: of the prompts, with `tree.longest` free slots behind the longest.
      lengths: int32 [B], tokens in each prompt.
      logits: float32 [B, V] after the last token of each prompt.
      keys: uint32 [B, 2], the random key of each row.
      temperature: float32 scalar, or None for greedy decoding.

    Returns:
      int32 [B, tree.longest]: the tokens of each line, -1 behind its end; `NOT_FINITE` where the logits were not.
    """
    tokens, children = jnp.asarray(tree.tokens), jnp.asarray(tree.children)

    def choose(step, node, logits):
        allowed = tokens[node]  # [B, choices]
        scores = jnp.take_along_axis(logits, jnp.maximum(allowed, 0), axis=1)
        if temperature is not None:
            scores = scores / temperature + gumbel(keys, step, scores.shape[1])
        choice = jnp.argmax(jnp.where(allowed < 0, -jnp.inf, scores), axis=1)[:, None]
        token = jnp.take_along_axis(allowed, choice, axis=1)[:, 0]
        broken = (node != 0) & ~jnp.isfinite(logits).all(axis=1)
        following = jnp.take_along_axis(children[node], choice, axis=1)[:, 0]
        return jnp.where(broken, NOT_FINITE, token), jnp.where(broken, 0, following)

    def unfinished(state):
        return jnp.any(state[1] != 0)

    def advance(state):
        step, node, line, token, cache = state
        # An ended row feeds token 0 behind the slots, which writes nothing.
        slots = kv_cache.slots_of(cache)
        view = views.in_order(jnp.where(node == 0, slots, lengths + step - 1)[:, None], slots)
        hidden, cache = decoder.forward(params, config, jnp.maximum(token, 0)[:, None], view, cache, placement)
        token, node = choose(step, node, decoder.head(params, config, hidden[:, 0]))
        return step + 1, node, line.at[:, step].set(token), token, cache

    rows = lengths.shape[0]
    token, node = choose(0, jnp.full(rows, tree.root), logits)
    line = jnp.full((rows, tree.longest), -1, jnp.int32).at[:, 0].set(token)
    return jax.lax.while_loop(unfinished, advance, (1, node, line, token, cache))[2]


def gumbel(keys: jax.Array, step: jax.Array | int, choices: int) -> jax.Array:
    """Float32 [B, choices] of Gumbel noise, a function of each row's key [B, 2] and its own step alone."""

    def row(key):
        own = jax.random.fold_in(jax.random.wrap_key_data(key, impl="threefry2x32"), step)
        return jax.random.gumbel(own, (choices,), jnp.float32)

    return jax.vmap(row)(keys)
