"""Every family against Hugging Face: whole and packed rows, prefill and decoding, trees; and what must not agree."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from family_models import CASES, make

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.attention import products
from judgelm_jax.model.config import LayerKind
from judgelm_jax.model.placement import Placement

TOLERANCE = 1e-4
TOKENS = np.random.default_rng(0).integers(3, 96, (2, 40))
BLOCKED = Placement(attention="blocked")
# Those whose every pass is compiled in the quick suite; between them they have every feature.
QUICK = ("qwen2, windows last", "gemma2", "gemma3")
EACH = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in QUICK else [pytest.mark.slow, pytest.mark.optimized]) for case in CASES]
)
# One control of each feature in the quick suite.
QUICK_FAULTS = {
    ("mistral", "a window one wider"), ("qwen2, windows last", "another layer with a window"),
    ("gemma2", "a window one narrower"), ("gemma2", "norms without offset"), ("gemma2", "queries by the width of a head"),
    ("gemma3", "one rotary base for all"),
}  # fmt: skip

logits = jax.jit(decoder.logits, static_argnums=(1, 3))
forward = jax.jit(decoder.forward, static_argnums=(1, 5))
head = jax.jit(decoder.head, static_argnums=1)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(products, "_BLOCK", 16)  # so that blocks begin behind their windows


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A function from a case to its model in PyTorch, our parameters and our config."""

    @functools.cache
    def get(case):
        folder = tmp_path_factory.mktemp("family")
        theirs = make(case, folder)
        checkpoint = open_checkpoint(str(folder))
        return theirs, checkpoint.load(None, "float32"), checkpoint.config

    return get


def theirs_of(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(np.asarray(tokens)), use_cache=False).logits.numpy()


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_hugging_face(models, case):
    theirs, params, config = models(case)
    expected = theirs_of(theirs, TOKENS)
    assert expected.std() > 0.3
    np.testing.assert_allclose(logits(params, config, TOKENS, BLOCKED), expected, atol=TOLERANCE)


@EACH
def test_prefill_and_64_greedy_tokens_equal_hugging_face(models, case):
    """Two prompts with a common beginning, packed into a tree, then continued one token at a time from the cache.

    Greedy text is its own fixed point: each token is the most likely one after those before it.
    """
    theirs, params, config = models(case)
    prompts = [(5, 6, 7, 8, 9, 10, 11, 12, 13), (5, 6, 7, 14, 15, 16, 17, 18, 19, 20, 21)]
    row, indices = [*prompts[0], *prompts[1][3:]], [[*range(9), 0, 0], [0, 1, 2, *range(9, 17)]]
    positions = [*range(9), *range(3, 11)]
    sources = [*range(9), *(11 + position for position in range(3, 11))]
    tree = views.PromptTree(*map(jnp.array, ([indices], [[0, 3]], [[8, 16]], [positions], [sources])))
    given = parameters.unstacked(params, config)  # as CPUs have it
    cache = kv_cache.empty(config, 2, 80, jnp.float32, unstacked=True)
    hidden, cache = forward(given, config, jnp.array([row]), tree, cache, BLOCKED)
    out = head(given, config, hidden)[0]  # [2, V]
    lengths = np.array([len(prompt) for prompt in prompts])
    steps = []
    for step in range(64):
        steps.append(np.asarray(out))
        view = views.in_order(jnp.asarray(lengths + step)[:, None], 80)
        hidden, cache = forward(given, config, steps[-1].argmax(axis=-1)[:, None], view, cache, BLOCKED)
        out = head(given, config, hidden)[:, 0]
    for number, prompt in enumerate(prompts):
        own = np.stack([step[number] for step in steps])  # [64, V]
        expected = theirs_of(theirs, [[*prompt, *own.argmax(axis=-1)[:-1]]])[0, len(prompt) - 1 :]
        np.testing.assert_allclose(own, expected, atol=TOLERANCE)
        assert own.argmax(axis=-1).tolist() == expected.argmax(axis=-1).tolist()


@EACH
def test_packed_documents_equal_each_alone(models, case):
    theirs, params, config = models(case)
    sizes = (17, 3, 20)
    positions = np.concatenate([np.arange(size) for size in sizes])[None]
    segments = np.repeat(np.arange(1, 4), sizes)[None]
    view = views.Rows(jnp.array(positions), jnp.array(segments))
    hidden, _ = forward(params, config, TOKENS[:1], view, None, BLOCKED)
    out = np.asarray(head(params, config, hidden))[0]
    for start, size in zip((0, 17, 20), sizes, strict=True):
        own = TOKENS[:1, start : start + size]
        np.testing.assert_allclose(out[start : start + size], theirs_of(theirs, own)[0], atol=TOLERANCE)


@EACH
def test_a_tree_of_tokens_equals_each_of_its_lines(models, case):
    """Three lines behind a prompt, whose nodes lie in slots that are not their positions."""
    theirs, params, config = models(case)
    prompt, lines = [5, 6, 7, 8, 9, 10, 11, 12], [(20, 21, 22, 23), (20, 24, 25, 26), (27, 28, 29, 30)]
    nodes = {}
    for line in lines:
        for end in range(1, len(line) + 1):
            nodes.setdefault(line[:end], len(nodes))
    count, length, slots = len(nodes), len(prompt), 24
    cache = kv_cache.empty(config, 1, slots, jnp.float32)
    _, cache = forward(params, config, jnp.array([prompt]), views.whole_rows(jnp.array([prompt])), cache, BLOCKED)
    mask, depths = np.zeros((1, count, slots), bool), np.array([len(node) - 1 for node in nodes])
    for node, number in nodes.items():
        mask[0, number, :length] = True
        mask[0, number, [length + nodes[node[:end]] for end in range(1, len(node) + 1)]] = True
    positions = np.arange(slots)
    positions[length : length + count] = length + depths
    view = views.Continued(
        jnp.array(length + depths)[None],
        length + jnp.arange(count)[None],
        jnp.array(mask),
        slot_positions=jnp.array(positions)[None],
    )
    tokens = jnp.array([[node[-1] for node in nodes]])
    hidden, _ = forward(params, config, tokens, view, cache, BLOCKED)
    out = np.asarray(head(params, config, hidden))[0]
    for line in lines:
        expected = theirs_of(theirs, [[*prompt, *line]])[0][length:]
        for end in range(1, len(line) + 1):
            np.testing.assert_allclose(out[nodes[line[:end]]], expected[end - 1], atol=TOLERANCE)


def shifted(pattern, by):
    return tuple(LayerKind(None if kind.window is None else kind.window + by, kind.rope_base) for kind in pattern)


# Of each, what the config has, off by a little. None may give the same logits.
OFF = {
    "mistral": {
        "a window one wider": lambda c: {"pattern": shifted(c.pattern, 1)},
        "a window one narrower": lambda c: {"pattern": shifted(c.pattern, -1)},
    },
    "qwen2, windows last": {
        "a window one wider": lambda c: {"pattern": shifted(c.pattern, 1)},
        "another layer with a window": lambda c: {"pattern": c.pattern[1:] + c.pattern[:1]},
    },
    "qwen3": {"another rotary base": lambda c: {"rope_base": c.rope_base * 1.1}},
    "gemma2": {
        "a window one narrower": lambda c: {"pattern": shifted(c.pattern, -1)},
        "kinds exchanged": lambda c: {"pattern": c.pattern[::-1]},
        "norms without offset": lambda c: {"norm_offset": 0.0},
        "embeddings a hundredth larger": lambda c: {"embedding_scale": c.embedding_scale * 1.01},
        "queries by the width of a head": lambda c: {"query_scale": None},
        "no cap of attention": lambda c: {"attention_softcap": None},
        "no cap of logits": lambda c: {"logit_softcap": None},
        "another activation": lambda c: {"activation": "silu"},
    },
    "gemma3": {
        "a window one wider": lambda c: {"pattern": shifted(c.pattern, 1)},
        "kinds of another period": lambda c: {"pattern": c.pattern[1:]},
        "one rotary base for all": lambda c: {"pattern": tuple(LayerKind(kind.window) for kind in c.pattern)},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        pytest.param(case, fault, marks=[] if (case, fault) in QUICK_FAULTS else [pytest.mark.slow, pytest.mark.optimized])
        for case, faults in OFF.items()
        for fault in faults
    ],
)
def test_what_is_off_by_a_little_gives_other_logits(models, case, fault):
    theirs, params, config = models(case)
    off = dataclasses.replace(config, **OFF[case][fault](config))
    assert off != config
    assert np.abs(logits(params, off, TOKENS, BLOCKED) - theirs_of(theirs, TOKENS)).max() > 100 * TOLERANCE
