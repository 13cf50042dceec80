"""Each view against whole rows by brute force: what a token gathers, and by gradient whom it sees."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import views
from judgelm_jax.model.attention import products
from judgelm_jax.model.config import NO_LIMITS, Limits, ModelConfig
from judgelm_jax.model.placement import Placement

HEADS, KV_HEADS, WIDTH = 4, 2, 4
CONFIG = ModelConfig(
    vocab_size=9, hidden_size=8, intermediate_size=8, num_layers=1, num_heads=HEADS, num_kv_heads=KV_HEADS, head_dim=WIDTH,
    context=64, norm_epsilon=1e-5, rope_base=1e4, rope_scaling=None, tied_embeddings=False, bos_id=1, eos_ids=(2,),
)  # fmt: skip
BACKENDS = pytest.mark.parametrize("backend", ["reference", "xla", "blocked"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(products, "_BLOCK", 4)  # so that rows have several


@functools.cache
def _attending(backend, limits):
    placement = Placement(attention=backend)
    return jax.jit(lambda view, q, k, v, cache: view.attend(q, k, v, cache, 0, placement, limits))


def attend(view, q, k, v, cache, backend, limits=NO_LIMITS):
    """One program for each kind of view: step by step there would be one for each operation."""
    return _attending(backend, limits)(view, q, k, v, cache)


def random_heads(rows, tokens, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rows, tokens, heads, WIDTH)).astype(np.float32) for heads in (HEADS, KV_HEADS, KV_HEADS)]


def plain(q, k, v, sees):
    """[S, H · D] of one row by the definition, in float64; `sees` is bool [S, S]."""
    out = np.zeros(q.shape)
    for token in range(len(q)):
        for h in range(HEADS):
            own = h // (HEADS // KV_HEADS)
            weights = np.exp(k[sees[token], own].astype(np.float64) @ q[token, h] / np.sqrt(WIDTH))
            out[token, h] = weights @ v[sees[token], own] / weights.sum()
    return out.reshape(len(q), -1)


def whole_rows():
    sees = np.tri(10, dtype=bool)
    return views.whole_rows(jnp.zeros((2, 10), jnp.int32)), np.stack([sees, sees]), np.ones((2, 10), bool)


def documents():
    segments = np.array([[1, 1, 1, 2, 2, 2, 2, 3, 0, 0], [1, 2, 2, 2, 2, 2, 2, 2, 2, 2]])
    positions = np.array([[0, 1, 2, 0, 1, 2, 3, 0, 0, 1], [0, 0, 1, 2, 3, 4, 5, 6, 7, 8]])
    sees = np.tri(10, dtype=bool) & (segments[:, :, None] == segments[:, None])
    return views.Rows(jnp.array(positions), jnp.array(segments)), sees, segments > 0


def tree_of(prompts, rows=2, tokens=10, most=3, longest=6):
    """The view of prompts [[ids of one, ...] of one row, ...], what each token sees, and which tokens are no padding."""
    indices = np.zeros((rows, most, longest), np.int32)
    shared = np.full((rows, most), longest, np.int32)
    ends, positions, sources = (np.zeros(shape, np.int32) for shape in ((rows, most), (rows, tokens), (rows, tokens)))
    sees, real = np.zeros((rows, tokens, tokens), bool), np.zeros((rows, tokens), bool)
    for row, own in enumerate(prompts):
        nodes = {}  # prefix → token of the row
        for number, ids in enumerate(own):
            known = [ids[: n + 1] in nodes for n in range(len(ids))]
            shared[row, number] = sum(known)
            path = [nodes.setdefault(ids[: n + 1], len(nodes)) for n in range(len(ids))]
            indices[row, number, : len(ids)], ends[row, number] = path, path[-1]
            for position in range(sum(known), len(ids)):
                token = path[position]
                positions[row, token], sources[row, token] = position, number * longest + position
                sees[row, token, path[: position + 1]] = real[row, token] = True
    return views.PromptTree(*map(jnp.array, (indices, shared, ends, positions, sources))), sees, real


PROMPTS = [[(1, 2, 3), (1, 2, 4, 5, 6), (1, 2, 4, 7)], [(1, 2, 3, 4, 5, 6), (1, 2)]]
CASES = pytest.mark.parametrize("case", [whole_rows, documents, lambda: tree_of(PROMPTS)], ids=["rows", "documents", "tree"])


@BACKENDS
@CASES
def test_tokens_gather_what_they_see(case, backend):
    view, sees, real = case()
    q, k, v = random_heads(2, 10)
    out, cache = attend(view, q, k, v, None, backend)
    assert cache is None
    for row in range(2):
        tokens = np.flatnonzero(real[row])
        own = plain(q[row, tokens], k[row, tokens], v[row, tokens], sees[row][np.ix_(tokens, tokens)])
        np.testing.assert_allclose(out[row, tokens], own, atol=1e-5)


@BACKENDS
@CASES
def test_a_window_ends_what_tokens_see(case, backend):
    view, sees, real = case()
    q, k, v = random_heads(2, 10)
    out, _ = attend(view, q, k, v, None, backend, Limits(window=3))
    positions = np.broadcast_to(view.positions, (2, 10))
    near = positions[:, :, None] - positions[:, None] < 3
    for row in range(2):
        tokens = np.flatnonzero(real[row])
        seen = (sees & near)[row][np.ix_(tokens, tokens)]
        np.testing.assert_allclose(out[row, tokens], plain(q[row, tokens], k[row, tokens], v[row, tokens], seen), atol=1e-5)


@BACKENDS
@CASES
def test_the_gradient_flows_from_exactly_those_that_a_token_sees(case, backend):
    view, sees, real = case()
    q, k, v = random_heads(2, 10)

    def sums(v):
        return view.attend(q, k, v, None, 0, Placement(attention=backend))[0].sum(axis=-1)  # [B, S]

    flows = np.abs(jax.jit(jax.jacrev(sums))(v)).sum(axis=(4, 5)) > 0  # [B, S, B, S]
    for row in range(2):
        np.testing.assert_array_equal(flows[row, real[row], row], sees[row, real[row]])
        assert not flows[row, real[row], 1 - row].any()


@BACKENDS
def test_the_last_layer_of_a_tree_gathers_at_the_ends_of_prompts(backend):
    tree, sees, _ = tree_of(PROMPTS)
    last = tree.in_last_layer()
    q, k, v = random_heads(2, 10)
    out, _ = attend(last, last.queries(q), k, v, None, backend)
    assert out.shape == (2, 3, HEADS * WIDTH)
    np.testing.assert_array_equal(last.positions, tree.positions)
    for row, own in enumerate(PROMPTS):
        for number in range(len(own)):
            end = int(tree.ends[row, number])
            seen = np.flatnonzero(sees[row, end])  # the prompt, its end the last
            causal = np.tri(len(seen), dtype=bool)
            expected = plain(q[row, seen], k[row, seen], v[row, seen], causal)[-1]
            np.testing.assert_allclose(out[row, number], expected, atol=1e-5)


def test_a_tree_begins_a_cache_of_whole_prompts():
    tree, _, _ = tree_of(PROMPTS)
    q, k, v = random_heads(2, 10)
    _, cache = attend(tree, q, k, v, kv_cache.empty(CONFIG, 6, 8, jnp.float32), "reference")
    for row, own in enumerate(PROMPTS):
        for number, ids in enumerate(own):
            path = np.asarray(tree.indices)[row, number, : len(ids)]
            for name, values in (("k", k), ("v", v)):
                np.testing.assert_array_equal(cache[name][0, 3 * row + number, :, : len(ids)], values[row, path].swapaxes(0, 1))


def begun_cache(k, v, lengths, slots):
    """A cache that holds the first tokens of each row of k, v [B, S, K, D], and anything behind them."""
    empty = kv_cache.empty(CONFIG, len(lengths), slots, jnp.float32)
    first = max(lengths)
    keys, values = (
        np.where(np.arange(first)[:, None, None] < np.array(lengths)[:, None, None, None], x[:, :first], 9) for x in (k, v)
    )
    return kv_cache.begin(empty, 0, *(jnp.asarray(x).swapaxes(1, 2) for x in (keys, values)))


@BACKENDS
@pytest.mark.parametrize("at_once", [1, 3])
def test_tokens_that_continue_see_their_row_up_to_themselves(backend, at_once):
    q, k, v = random_heads(2, 10)
    lengths = np.array([3, 6])
    cache = begun_cache(k, v, lengths, 12)
    expected = [plain(q[row], k[row], v[row], np.tri(10, dtype=bool)) for row in range(2)]
    for start in range(0, 3, at_once):
        positions = lengths[:, None] + start + np.arange(at_once)
        view = views.in_order(jnp.array(positions), 12)
        new = (np.take_along_axis(x, positions[:, :, None, None], axis=1) for x in (q, k, v))
        out, cache = attend(view, *new, cache, backend)
        for row in range(2):
            np.testing.assert_allclose(out[row], expected[row][positions[row]], atol=1e-5)


@BACKENDS
def test_a_tree_that_continues_a_cache_sees_the_prompt_and_its_ancestors(backend):
    q, k, v = random_heads(2, 10)
    lengths, parents = np.array([3, 6]), [-1, 0, 0, 1]  # four nodes: two children of the first, one of the second
    cache = begun_cache(k, v, lengths, 11)
    mask, sees = np.zeros((2, 4, 11), bool), np.zeros((2, 10, 10), bool)
    for row, length in enumerate(lengths):
        for node, parent in enumerate(parents):
            mask[row, node, :length] = mask[row, node, length + node] = True
            if parent >= 0:
                mask[row, node] |= mask[row, parent]
            sees[row, length + node] = mask[row, node, :10]
    slots = lengths[:, None] + np.arange(4)
    view = views.Continued(jnp.array(slots), jnp.array(slots), jnp.array(mask))
    new = (np.take_along_axis(x, slots[:, :, None, None], axis=1) for x in (q, k, v))
    out, _ = attend(view, *new, cache, backend)
    for row, length in enumerate(lengths):
        used = np.arange(length + 4)
        whole = sees[row][: length + 4, : length + 4] | np.eye(length + 4, dtype=bool)
        expected = plain(q[row, used], k[row, used], v[row, used], whole)[length:]
        np.testing.assert_allclose(out[row], expected, atol=1e-5)


def test_tokens_that_continue_need_a_cache():
    q, k, v = random_heads(1, 1)
    with pytest.raises(ValueError, match="need one"):
        views.in_order(jnp.zeros((1, 1), jnp.int32), 4).attend(q, k, v, None, 0, Placement())
