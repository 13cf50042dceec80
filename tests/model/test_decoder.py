import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.attention import products
from judgelm_jax.model.placement import Placement
from judgelm_jax.tokens.tokenization import load_tokenizer

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS = {
    "llama 1: as many key/value heads as heads": {},
    "llama 2 70b: grouped queries": {"num_key_value_heads": 2},
    "llama 3: one key/value head, large base": {"num_key_value_heads": 1, "rope_parameters": {"rope_theta": 500000.0}},
    "llama 3.1: scaled frequencies": {"num_key_value_heads": 2, "rope_parameters": LLAMA3_ROPE},
    "llama 3.2: tied embeddings": {"tie_word_embeddings": True, "rope_parameters": {**LLAMA3_ROPE, "factor": 32.0}},
    "vicuna 16k: linear scaling": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0}},
    "a head width of its own": {"head_dim": 24, "num_key_value_heads": 2},
    "a large norm epsilon": {"rms_norm_eps": 1e-2},
}

# Not jitted they would be compiled once a call: a scan is.
forward = jax.jit(decoder.forward, static_argnums=(1, 5))
logits_of = jax.jit(decoder.logits, static_argnums=(1, 3))


def loaded(folder):
    checkpoint = open_checkpoint(str(folder))
    return checkpoint.load(None, "float32"), checkpoint.config


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda name: name.split(":")[0])
def test_logits_equal_hugging_face(variant, tmp_path):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=112, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, initializer_range=0.2, **VARIANTS[variant],
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
    theirs.save_pretrained(tmp_path)
    params, ours = loaded(tmp_path)
    tokens = np.random.default_rng(1).integers(0, 96, (2, 160))
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens)).logits.numpy()
    for backend in ("reference", "blocked"):
        out = logits_of(params, ours, tokens, Placement(attention=backend))
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(out, expected, atol=1e-4)


@pytest.fixture(scope="module")
def tiny(laboratory_checkpoint):
    return loaded(laboratory_checkpoint)


def test_no_logit_depends_on_a_later_token(tiny):
    params, config = tiny
    tokens = jnp.arange(8, 20)[None]
    embedded = params["embed_tokens"]["weight"][tokens[0]]

    def logit_sums(inputs):
        # The same tokens through an embedding of their own, so that each position has its own gradient.
        own = {**params, "embed_tokens": {"weight": inputs}}
        own_tokens = jnp.arange(12)[None]
        hidden, _ = decoder.forward(own, config, own_tokens, views.whole_rows(own_tokens))
        return jnp.tanh(decoder.head(params, config, hidden)[0]).sum(axis=-1)  # [S]

    gradient = np.abs(jax.jit(jax.jacrev(logit_sums))(embedded)).sum(axis=-1)  # [S, S]
    assert (np.triu(gradient, 1) == 0).all()
    assert (gradient[np.tril_indices(12)] > 0).all()


@pytest.mark.parametrize("unstacked", [False, True], ids=["stacked", "unstacked"])
def test_decoding_with_a_cache_equals_one_pass(tiny, unstacked):
    params, config = tiny
    rng = np.random.default_rng(2)
    tokens = rng.integers(3, config.vocab_size, (3, 20))
    lengths = np.array([4, 9, 13])  # each row continues at its own length
    whole = logits_of(params, config, tokens)
    prompt = np.where(np.arange(13) < lengths[:, None], tokens[:, :13], 7)
    given = parameters.unstacked(params, config) if unstacked else params
    empty, fresh = (kv_cache.empty(config, rows, slots, jnp.float32, unstacked=unstacked) for rows, slots in ((4, 20), (3, 13)))
    _, begun = forward(given, config, prompt, views.whole_rows(prompt), fresh)
    cache = kv_cache.insert(empty, np.array([2, 0, 4]), begun)  # the third is dropped: there is no row 4
    cache = kv_cache.insert(cache, np.array([5, 6, 3]), begun)
    order, rows = np.array([1, 0, 0, 2]), np.array([True, False, True, True])
    for offset in range(6):
        positions = lengths[order] + offset
        token = tokens[order, positions][:, None]
        hidden, cache = forward(given, config, token, views.in_order(positions[:, None], 20), cache)
        expected = np.asarray(whole)[order, positions]
        np.testing.assert_allclose(decoder.head(params, config, hidden)[rows, 0], expected[rows], atol=2e-5)


def tree_of_three():
    """Two rows. In the first, [5 6 7 8] and [5 6 9 10 11] and [5 6 9] are packed; in the second, [12 13] alone."""
    tokens = np.array([[5, 6, 7, 8, 9, 10, 11, 0], [12, 13, 0, 0, 0, 0, 0, 0]])
    positions = np.array([[0, 1, 2, 3, 2, 3, 4, 0], [0, 1, 0, 0, 0, 0, 0, 0]])
    indices = np.array([[[0, 1, 2, 3, 0], [0, 1, 4, 5, 6], [0, 1, 4, 0, 0]], [[0, 1, 0, 0, 0], [0] * 5, [0] * 5]])
    sources = np.array([[0, 1, 2, 3, 5 + 2, 5 + 3, 5 + 4, 0], [0, 1, 0, 0, 0, 0, 0, 0]])
    ends, shared = np.array([[3, 6, 4], [1, 0, 0]]), np.array([[0, 2, 3], [0, 5, 5]])
    prompts = [[5, 6, 7, 8], [5, 6, 9, 10, 11], [5, 6, 9], [12, 13]]
    return tokens, views.PromptTree(indices, shared, ends, positions, sources), prompts


@pytest.mark.parametrize("layers", ["stacked", "unstacked"])
@pytest.mark.parametrize("backend", ["reference", "xla", "blocked"])
def test_packed_prompts_are_what_each_is_alone(tiny, backend, layers, monkeypatch):
    monkeypatch.setattr(products, "_BLOCK", 2)  # so that there are blocks without a token of their own
    params, config = tiny
    given = params if layers == "stacked" else parameters.unstacked(params, config)
    tokens, view, prompts = tree_of_three()
    empty = kv_cache.empty(config, 6, 7, jnp.float32, unstacked=layers == "unstacked")
    hidden, cache = forward(given, config, tokens, view, empty, Placement(attention=backend))
    assert hidden.shape == (2, 3, config.hidden_size)
    for index, prompt in enumerate(prompts):
        row, fresh = np.array([prompt]), kv_cache.empty(config, 1, 7, jnp.float32)
        alone, own = forward(params, config, row, views.whole_rows(row), fresh)
        np.testing.assert_allclose(hidden.reshape(6, -1)[index], alone[0, -1], atol=1e-5)
        for name in ("k", "v"):
            keys = np.stack(cache[name])[:, index, :, : len(prompt)]
            np.testing.assert_allclose(keys, own[name][:, 0, :, : len(prompt)], atol=1e-5)


def test_layers_one_by_one_equal_the_scan_over_stacked_ones(tiny):
    params, config = tiny
    tokens = np.arange(5, 65).reshape(3, 20)
    unstacked = parameters.unstacked(params, config)
    assert len(unstacked["layers"]) == config.num_layers
    np.testing.assert_allclose(logits_of(unstacked, config, tokens), logits_of(params, config, tokens), atol=1e-5)


def test_layers_that_differ_in_weights_alone_are_traced_once(tiny, monkeypatch):
    """Also where each writes its own part of a cache: tracing takes as long for two layers as for eighty."""
    _, config = tiny
    config = dataclasses.replace(config, num_layers=8, context=77)  # a shape of this test's own: nothing is traced yet
    params = jax.eval_shape(
        lambda key: parameters.unstacked(parameters.init_params(config, key, "float32"), config), jax.random.key(0)
    )
    traced = []
    attend = views.Continued.attend
    monkeypatch.setattr(views.Continued, "attend", lambda *arguments: traced.append(1) or attend(*arguments))
    view = views.in_order(jnp.full((2, 1), 3), 9)
    cache = kv_cache.empty(config, 2, 9, jnp.float32, unstacked=True)
    jax.jit(lambda params, cache: decoder.forward(params, config, jnp.ones((2, 1), int), view, cache)).lower(params, cache)
    assert len(traced) == 1


def test_padding_changes_nothing_before_it(tiny):
    params, config = tiny
    tokens = np.arange(5, 45)[None]
    padded = np.concatenate([tokens, np.full((1, 24), 9)], axis=1)
    np.testing.assert_allclose(logits_of(params, config, padded)[:, :40], logits_of(params, config, tokens), atol=1e-5)


def test_a_position_outside_of_the_cache_writes_nothing(tiny):
    params, config = tiny
    row, empty = np.array([[5, 6, 7]]), kv_cache.empty(config, 1, 4, jnp.float32)
    _, cache = forward(params, config, row, views.whole_rows(row), empty)
    _, after = forward(params, config, np.array([[8]]), views.in_order(np.array([[4]]), 4), cache)
    jax.tree.map(np.testing.assert_array_equal, after, cache)


def test_bfloat16_stays_near_float32(tiny):
    params, config = tiny
    tokens = np.arange(5, 105)[None]
    exact = np.asarray(logits_of(params, config, tokens))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    near = np.asarray(logits_of(half, config, tokens))
    assert near.dtype == np.float32
    assert np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


@pytest.fixture(scope="module")
def stories(shared):
    folder = shared / "data" / "checkpoints" / "stories260K-hf"
    golden = json.loads((shared / "data" / "checkpoints" / "stories260K_golden.json").read_text())
    return *loaded(folder), load_tokenizer(folder), golden


def test_the_real_checkpoint_writes_its_golden_text(stories):
    params, config, tokenizer, golden = stories
    for case in golden["greedy"]:
        prompt, expected = case["prompt_ids"], case["output_ids"]
        assert [tokenizer.bos_id, *tokenizer.encode(case["prompt"])] == prompt
        assert len(expected) - len(prompt) >= 200
        # Greedy text is its own fixed point: each token is the most likely one after those before it.
        padded = np.array([expected + [0] * (264 - len(expected))])
        out = np.asarray(logits_of(params, config, padded))[0]
        assert out.argmax(axis=-1)[len(prompt) - 1 : len(expected) - 1].tolist() == expected[len(prompt) :]
        assert tokenizer.decode(expected) == case["text"]
        for token, value in case["next_top5"]:
            assert out[len(prompt) - 1, token] == pytest.approx(value, abs=1e-4)


def test_the_real_checkpoint_has_its_golden_loss(stories):
    params, config, tokenizer, golden = stories
    ids = golden["nll"]["ids"]
    assert [tokenizer.bos_id, *tokenizer.encode(golden["nll"]["text"])] == ids
    likelihoods = jax.nn.log_softmax(logits_of(params, config, np.array([ids[:-1]]))[0])
    loss = -likelihoods[np.arange(len(ids) - 1), ids[1:]].sum()
    assert float(loss) == pytest.approx(golden["nll"]["sum_nll"], abs=1e-4)
