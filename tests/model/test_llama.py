import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import llama
from judgelm_jax.model.attention import products
from judgelm_jax.tokenization import load_tokenizer

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
        out = jax.jit(llama.logits, static_argnums=(1, 3))(params, ours, tokens, llama.Placement(attention=backend))
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
        hidden, _ = llama.forward(own, config, jnp.arange(12)[None])
        return jnp.tanh(llama.head(params, hidden)[0]).sum(axis=-1)  # [S]

    gradient = np.abs(jax.jit(jax.jacrev(logit_sums))(embedded)).sum(axis=-1)  # [S, S]
    assert (np.triu(gradient, 1) == 0).all()
    assert (gradient[np.tril_indices(12)] > 0).all()


@pytest.mark.parametrize("apart", [False, True], ids=["stacked", "apart"])
def test_decoding_with_a_cache_equals_one_pass(tiny, apart):
    params, config = tiny
    rng = np.random.default_rng(2)
    tokens = rng.integers(3, config.vocab_size, (3, 20))
    lengths = np.array([4, 9, 13])  # each row continues at its own length
    whole = llama.logits(params, config, tokens)
    prompt = np.where(np.arange(13) < lengths[:, None], tokens[:, :13], 7)
    given = llama.unstacked(params, config) if apart else params
    empty = kv_cache.empty(config, 4, 20, jnp.float32, apart=apart)
    _, begun = llama.forward(given, config, prompt, cache=kv_cache.empty(config, 3, 13, jnp.float32, apart=apart))
    cache = kv_cache.insert(empty, np.array([2, 0, 4]), begun)  # the third is dropped: there is no row 4
    cache = kv_cache.insert(cache, np.array([5, 6, 3]), begun)
    order, rows = np.array([1, 0, 0, 2]), np.array([True, False, True, True])
    step = jax.jit(llama.forward, static_argnums=1)
    for offset in range(6):
        places = lengths[order] + offset
        token = tokens[order, places][:, None]
        hidden, cache = step(given, config, token, llama.in_order(places[:, None], 20), cache)
        expected = np.asarray(whole)[order, places]
        np.testing.assert_allclose(llama.head(params, hidden)[rows, 0], expected[rows], atol=2e-5)


def tree_of_three():
    """Two rows. In the first, [5 6 7 8] and [5 6 9 10 11] and [5 6 9] are packed; in the second, [12 13] alone."""
    tokens = np.array([[5, 6, 7, 8, 9, 10, 11, 0], [12, 13, 0, 0, 0, 0, 0, 0]])
    positions = np.array([[0, 1, 2, 3, 2, 3, 4, 0], [0, 1, 0, 0, 0, 0, 0, 0]])
    places = np.array([[[0, 1, 2, 3, 0], [0, 1, 4, 5, 6], [0, 1, 4, 0, 0]], [[0, 1, 0, 0, 0], [0] * 5, [0] * 5]])
    sources = np.array([[0, 1, 2, 3, 5 + 2, 5 + 3, 5 + 4, 0], [0, 1, 0, 0, 0, 0, 0, 0]])
    ends, owns = np.array([[3, 6, 4], [1, 0, 0]]), np.array([[0, 2, 3], [0, 5, 5]])
    prompts = [[5, 6, 7, 8], [5, 6, 9, 10, 11], [5, 6, 9], [12, 13]]
    return tokens, llama.Packed(places, owns, ends, positions, sources), prompts


@pytest.mark.parametrize("layers", ["stacked", "unstacked"])
@pytest.mark.parametrize("backend", ["reference", "xla", "blocked"])
def test_packed_prompts_are_what_each_is_alone(tiny, backend, layers, monkeypatch):
    monkeypatch.setattr(products, "_BLOCK", 2)  # so that there are blocks without a token of their own
    params, config = tiny
    given = params if layers == "stacked" else llama.unstacked(params, config)
    tokens, packed, prompts = tree_of_three()
    empty = kv_cache.empty(config, 6, 7, jnp.float32, apart=layers == "unstacked")
    hidden, cache = llama.forward(
        given, config, tokens, cache=empty, placement=llama.Placement(attention=backend), packed=packed
    )
    assert hidden.shape == (2, 3, config.hidden_size)
    for place, prompt in enumerate(prompts):
        alone, own = llama.forward(params, config, np.array([prompt]), cache=kv_cache.empty(config, 1, 7, jnp.float32))
        np.testing.assert_allclose(hidden.reshape(6, -1)[place], alone[0, -1], atol=1e-5)
        for name in ("k", "v"):
            keys = np.stack(cache[name])[:, place, :, : len(prompt)]
            np.testing.assert_allclose(keys, own[name][:, 0, :, : len(prompt)], atol=1e-5)


def test_layers_one_by_one_equal_the_scan_over_stacked_ones(tiny):
    params, config = tiny
    tokens = np.arange(5, 65).reshape(3, 20)
    apart = llama.unstacked(params, config)
    assert len(apart["layers"]) == config.num_layers
    np.testing.assert_allclose(llama.logits(apart, config, tokens), llama.logits(params, config, tokens), atol=1e-5)


def test_padding_changes_nothing_before_it(tiny):
    params, config = tiny
    tokens = np.arange(5, 45)[None]
    padded = np.concatenate([tokens, np.full((1, 24), 9)], axis=1)
    np.testing.assert_allclose(llama.logits(params, config, padded)[:, :40], llama.logits(params, config, tokens), atol=1e-5)


def test_a_position_outside_of_the_cache_writes_nothing(tiny):
    params, config = tiny
    _, cache = llama.forward(params, config, np.array([[5, 6, 7]]), cache=kv_cache.empty(config, 1, 4, jnp.float32))
    _, after = llama.forward(params, config, np.array([[8]]), llama.in_order(np.array([[4]]), 4), cache)
    jax.tree.map(np.testing.assert_array_equal, after, cache)


def test_bfloat16_stays_near_float32(tiny):
    params, config = tiny
    tokens = np.arange(5, 105)[None]
    exact = np.asarray(llama.logits(params, config, tokens))
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    near = np.asarray(llama.logits(half, config, tokens))
    assert near.dtype == np.float32
    assert np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


def test_parameters_of_a_seed_are_the_same_and_differ_between_leaves():
    from judgelm_jax.model.config import ModelConfig

    config = ModelConfig(32, 16, 16, 2, 2, 2, 8, 64, 1e-5, 1e4, None, False, 1, (2,))
    one, two = (llama.init_params(config, jax.random.key(3), jnp.float32) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert not np.array_equal(one["layers"]["mlp"]["gate_proj"]["weight"], one["layers"]["mlp"]["up_proj"]["weight"])
    assert one["layers"]["mlp"]["up_proj"]["weight"].std() == pytest.approx(0.02, rel=0.1)
    assert (one["norm"]["weight"] == 1).all()


@pytest.fixture(scope="module")
def stories(shared):
    folder = shared / "data" / "checkpoints" / "stories260K-hf"
    golden = json.loads((shared / "data" / "checkpoints" / "stories260K_golden.json").read_text())
    return *loaded(folder), load_tokenizer(folder), golden


def test_the_real_checkpoint_writes_its_golden_text(stories):
    params, config, tokenizer, golden = stories
    logits = jax.jit(lambda tokens: llama.logits(params, config, tokens))
    for case in golden["greedy"]:
        prompt, expected = case["prompt_ids"], case["output_ids"]
        assert [tokenizer.bos_id, *tokenizer.encode(case["prompt"])] == prompt
        assert len(expected) - len(prompt) >= 200
        # Greedy text is its own fixed point: each token is the most likely one after those before it.
        padded = np.array([expected + [0] * (264 - len(expected))])
        out = np.asarray(logits(padded))[0]
        assert out.argmax(axis=-1)[len(prompt) - 1 : len(expected) - 1].tolist() == expected[len(prompt) :]
        assert tokenizer.decode(expected) == case["text"]
        for token, value in case["next_top5"]:
            assert out[len(prompt) - 1, token] == pytest.approx(value, abs=1e-4)


def test_the_real_checkpoint_has_its_golden_loss(stories):
    params, config, tokenizer, golden = stories
    ids = golden["nll"]["ids"]
    assert [tokenizer.bos_id, *tokenizer.encode(golden["nll"]["text"])] == ids
    likelihoods = jax.nn.log_softmax(llama.logits(params, config, np.array([ids[:-1]]))[0])
    loss = -likelihoods[np.arange(len(ids) - 1), ids[1:]].sum()
    assert float(loss) == pytest.approx(golden["nll"]["sum_nll"], abs=1e-4)
