"""A prefill in parts is the prefill of all rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.judging.prefill import prefill
from judgelm_jax.model import llama


@pytest.fixture(scope="module")
def model(laboratory_checkpoint, one_device):
    checkpoint = open_checkpoint(str(laboratory_checkpoint))
    return checkpoint.load(llama.param_shardings(checkpoint.config, one_device), "float32"), checkpoint.config


# Of 7 rows of 16 tokens: 7 parts of 1, 7 of 1, 4 of 2 (a row is computed twice), 3 of 3, and all.
@pytest.mark.parametrize("at_once", [1, 16, 40, 48, 112])
def test_in_parts_it_is_what_it_is_in_one(model, at_once):
    params, config = model
    rng = np.random.default_rng(0)
    tokens = rng.integers(3, config.vocab_size, (7, 16)).astype(np.int32)
    lengths = rng.integers(1, 17, 7).astype(np.int32)
    run = functools.partial(
        prefill, params, config, llama.Placement(), tokens=tokens, lengths=lengths, room=3, dtype=jnp.float32
    )
    last, cache = jax.jit(functools.partial(run, at_once=at_once))()
    assert cache["k"].shape[1:4] == (7, config.num_kv_heads, 19)
    for row, length in enumerate(lengths):
        hidden, alone = llama.forward(params, config, tokens[row : row + 1, :length], cache=cache_of_one(config))
        np.testing.assert_allclose(last[row], hidden[0, -1], atol=1e-5)
        for name in ("k", "v"):
            np.testing.assert_allclose(cache[name][:, row, :, :length], alone[name][:, 0, :, :length], atol=1e-5)


def cache_of_one(config):
    shape = (config.num_layers, 1, config.num_kv_heads, 16, config.head_dim)
    return {"k": jnp.zeros(shape), "v": jnp.zeros(shape)}
