"""Scores one by one: the probability of each score of a line, given the likeliest ones before it.

N scores of a grid of G have Gᴺ lines, too many to compute from N = 4 on. Instead, of the first score the probabilities of its G
values; then, behind the likeliest, those of the second; and so on. A score counts with what must follow it: the beginning of
another score, or for the last one the newline.

```
prompt ─┬ 1 ␣        the likeliest   ─┬ 1 ␣        the likeliest
        ├ 2 ␣        is written into  ├ 2 ␣        is written behind it, ...
        └ ...        the cache        └ ...
```
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from judgelm_jax.judging import line_tree
from judgelm_jax.judging.line_parts import LineParts
from judgelm_jax.judging.line_tree import LineTree
from judgelm_jax.model import attention, decoder, parameters, views
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement


@dataclasses.dataclass(frozen=True)
class ScoreChain:
    """`count` scores, two or more, each of G values.

    `first`, `later`: the trees of the first and of a further score; their sequences are, in this order, the G values alone,
    each value with each of the `followers` tokens that may come behind it, and each value with the newline. `written`: int32
    [2, G, most], the ids of the values as first and as further score, filled up; `sizes`: int32 [2, G], their number.
    """

    first: LineTree
    later: LineTree
    count: int
    followers: int
    written: np.ndarray
    sizes: np.ndarray
    longest: int
    prompt_end: tuple[int, ...]

    @property
    def slots(self) -> int:
        """Of the cache, behind a prompt."""
        return self.count * self.written.shape[2] + max(len(self.first.tokens), len(self.later.tokens))


def build(parts: LineParts, count: int) -> ScoreChain:
    """The chain of `count` scores."""
    followers = sorted({ids[0] for ids in parts.later})

    def tree(values: tuple[tuple[int, ...], ...]) -> LineTree:
        followed = [(*ids, token) for ids in values for token in followers]
        return line_tree.of_sequences([*values, *followed, *((*ids, *parts.newline) for ids in values)], parts.prompt_end)

    most = max(map(len, (*parts.first, *parts.later)))
    sizes = np.array([[len(ids) for ids in values] for values in (parts.first, parts.later)], np.int32)
    written = np.zeros((*sizes.shape, most), np.int32)
    for row, values in enumerate((parts.first, parts.later)):
        for number, ids in enumerate(values):
            written[row, number, : len(ids)] = ids
    return ScoreChain(
        tree(parts.first),
        tree(parts.later),
        count,
        len(followers),
        written,
        sizes,
        longest=int(sizes[0].max() + (count - 1) * sizes[1].max()) + len(parts.newline),
        prompt_end=parts.prompt_end,
    )


def log_probabilities(
    params: parameters.Params,
    config: ModelConfig,
    placement: Placement,
    chain: ScoreChain,
    cache: kv_cache.Cache,
    lengths: jax.Array,
    hidden: jax.Array,
) -> jax.Array:
    """float32 [B, N, G]: the logarithm of the probability of each value of each score, given the likeliest values before it.

    Rows are not normalized: their sum is the probability that it is a value of the grid at all.

    Args:
      cache: of the prompts, with `chain.slots` free slots behind the longest.
      lengths: int32 [B], tokens in each prompt.
      hidden: [B, E], what `forward` returned at the last token of each prompt.
    """
    values = chain.written.shape[1]
    slots = kv_cache.slots_of(cache)

    def score(tree, cache, lengths, hidden):
        """[B, G] each: of the values alone, with another score behind them, with the newline behind them; and the cache."""
        logs, cache = line_tree.log_probabilities(params, config, placement, tree, cache, lengths, hidden)
        alone, followed, ended = jnp.split(logs, [values, values * (1 + chain.followers)], axis=1)
        followed = jax.nn.logsumexp(followed.reshape(-1, values, chain.followers), axis=2)
        return alone, followed, ended, cache

    def write(cache, lengths, chosen, row):
        """The chosen values [B] behind what is there: the cache, the new lengths and the hidden state at the last token."""
        ids, sizes = (jnp.asarray(table)[row][chosen] for table in (chain.written, chain.sizes))
        offsets = jnp.arange(ids.shape[1])
        positions = lengths[:, None] + offsets
        places = jnp.where(offsets < sizes[:, None], positions, slots)  # what fills a short value up is written nowhere
        view = views.Continued(positions, places, attention.cache_mask(positions, slots))
        states, cache = decoder.forward(params, config, ids, view, cache, placement)
        hidden = jnp.take_along_axis(states, (sizes - 1)[:, None, None], axis=1)[:, 0]
        return cache, lengths + sizes, hidden

    def following(carry, number):
        cache, lengths, alone, followed = carry
        chosen = jnp.argmax(followed, axis=1)
        # That a score follows is in the probability of the value before it already.
        goes_on = jnp.take_along_axis(followed - alone, chosen[:, None], axis=1)
        cache, lengths, hidden = write(cache, lengths, chosen, jnp.minimum(number - 1, 1))
        alone, followed, ended, cache = score(chain.later, cache, lengths, hidden)
        logs = jnp.where(number == chain.count - 1, ended, followed) - goes_on
        return (cache, lengths, alone, followed), logs

    alone, followed, _, cache = score(chain.first, cache, lengths, hidden)
    rest = jax.lax.scan(following, (cache, lengths, alone, followed), jnp.arange(1, chain.count))[1]  # [N - 1, B, G]
    return jnp.concatenate([followed[:, None], rest.swapaxes(0, 1)], axis=1)
