"""The forward pass on eight devices against the same pass on one."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.errors import InputError
from judgelm_jax.judging.batching import Prompt, batches
from judgelm_jax.judging.prefill import prefill
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.placement import Placement

TOKENS = np.random.default_rng(0).integers(3, 300, (8, 24))

EXPECTED = {
    ("embed_tokens", "weight"): P("tensor", "fsdp"),
    ("layers", "input_layernorm", "weight"): P(),
    ("layers", "self_attn", "q_proj", "weight"): P(None, ("tensor", "fsdp"), None),
    ("layers", "self_attn", "k_proj", "weight"): P(None, ("tensor", "fsdp"), None),
    ("layers", "self_attn", "v_proj", "weight"): P(None, ("tensor", "fsdp"), None),
    ("layers", "self_attn", "o_proj", "weight"): P(None, "fsdp", "tensor"),
    ("layers", "post_attention_layernorm", "weight"): P(),
    ("layers", "mlp", "gate_proj", "weight"): P(None, ("tensor", "fsdp"), None),
    ("layers", "mlp", "up_proj", "weight"): P(None, ("tensor", "fsdp"), None),
    ("layers", "mlp", "down_proj", "weight"): P(None, "fsdp", "tensor"),
    ("norm", "weight"): P(),
    ("lm_head", "weight"): P("tensor", "fsdp"),
}


@pytest.fixture(scope="module")
def checkpoint(laboratory_checkpoint):
    return open_checkpoint(str(laboratory_checkpoint))


@pytest.fixture(scope="module")
def unsharded(checkpoint):
    return np.asarray(decoder.logits(checkpoint.load(None, "float32"), checkpoint.config, TOKENS))


@pytest.mark.parametrize("text", ["data:2,fsdp:2,tensor:2", "data:8", "fsdp:8", "fsdp:4,tensor:2"])
def test_sharded_equals_unsharded(checkpoint, unsharded, text):
    mesh = make_mesh(MeshConfig.parse(text))
    params = checkpoint.load(parameters.param_shardings(checkpoint.config, mesh), "float32")
    placement = Placement(mesh)

    def run(params, tokens):
        empty = kv_cache.empty(checkpoint.config, *tokens.shape, jnp.float32, mesh)
        hidden, fresh = decoder.forward(params, checkpoint.config, tokens, views.whole_rows(tokens), empty, placement)
        return decoder.head(params, checkpoint.config, hidden), hidden, fresh

    tokens = jax.device_put(TOKENS, NamedSharding(mesh, P(("data", "fsdp"))))
    logits, hidden, fresh = jax.jit(run)(params, tokens)
    np.testing.assert_allclose(logits, unsharded, atol=2e-5)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    assert len(leaves) == len(EXPECTED)
    for path, leaf in leaves:
        wanted = NamedSharding(mesh, EXPECTED[tuple(key.key for key in path)])
        assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), path
    assert hidden.sharding.is_equivalent_to(NamedSharding(mesh, P(("data", "fsdp"))), hidden.ndim)
    keys = NamedSharding(mesh, P(None, ("data", "fsdp"), "tensor"))
    assert fresh["k"].sharding.is_equivalent_to(keys, fresh["k"].ndim)


@pytest.mark.parametrize("backend", ["xla", "blocked"])
def test_packed_prompts_are_split_over_devices_that_need_not_talk(checkpoint, backend):
    mesh = make_mesh(MeshConfig.parse("data:8"))
    params = checkpoint.load(parameters.param_shardings(checkpoint.config, mesh), "float32")
    rng = np.random.default_rng(1)
    prompts = []
    for index in range(24):
        start = [1, 5, 6, 7] + ([8, 9] if index % 2 else [])
        prompts.append(
            Prompt(index, np.array([*start, *rng.integers(3, 300, 20 + index % 5)], np.int32), np.zeros(2, np.uint32))
        )
    (batch,) = batches(prompts, [64], 4096, None, 8)
    tokens, tree = jax.device_put(batch.arrays[:2], NamedSharding(mesh, P(("data", "fsdp"))))
    assert batch.tree_tokens < sum(len(prompt.ids) for prompt in prompts)
    placement = Placement(mesh, backend)

    def run(params, tokens, tree):
        return prefill(params, checkpoint.config, placement, tokens, tree, 4, jnp.float32)

    compiled = jax.jit(run).lower(params, tokens, tree).compile()
    assert not re.findall(r"all-gather|all-reduce|all-to-all|collective-permute", compiled.as_text())
    last, cache = compiled(params, tokens, tree)
    padded = np.zeros((24, 64), np.int32)
    for prompt in prompts:
        padded[prompt.index, : len(prompt.ids)] = prompt.ids
    alone, _ = decoder.forward(checkpoint.load(None, "float32"), checkpoint.config, padded, views.whole_rows(padded))
    for index, prompt in batch.prompts_by_index:
        np.testing.assert_allclose(last[index], alone[prompt.index, len(prompt.ids) - 1], atol=1e-5)
    keys = NamedSharding(mesh, P(None, ("data", "fsdp"), "tensor"))
    assert cache["k"].sharding.is_equivalent_to(keys, cache["k"].ndim)


def test_no_device_holds_the_whole_model(checkpoint):
    mesh = make_mesh(MeshConfig.parse("data:2,fsdp:2,tensor:2"))
    params = checkpoint.load(parameters.param_shardings(checkpoint.config, mesh), "float32")
    weight = params["layers"]["mlp"]["gate_proj"]["weight"]
    assert weight.addressable_shards[0].data.size * 4 == weight.size


def test_heads_that_do_not_divide_are_refused(checkpoint):
    mesh = make_mesh(MeshConfig.parse("data:2,tensor:4"))  # 4 heads, 2 key/value heads
    with pytest.raises(InputError, match=r"kv_heads.*tensor = 4.*size 2"):
        parameters.param_shardings(checkpoint.config, mesh)
