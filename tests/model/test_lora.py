"""Adapters beside the weights against the same adapters added to the weights, on one device and on eight."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.errors import InputError
from judgelm_jax.model import decoder, lora, parameters, views
from judgelm_jax.model.placement import Placement
from judgelm_jax.training_config import LORA_TARGETS, LoraConfig

TOKENS = np.random.default_rng(0).integers(3, 300, (8, 24))
TWO = LoraConfig(rank=4, alpha=6.0)
ALL = LoraConfig(rank=3, alpha=16.0, targets=LORA_TARGETS)
MLP = LoraConfig(rank=70, alpha=32.0, targets=("down_proj",))  # more than the model is wide
SETTINGS = pytest.mark.parametrize("setting", [TWO, ALL, MLP], ids=["q and v", "all", "one, of a high rank"])


@pytest.fixture(scope="module")
def checkpoint(laboratory_checkpoint):
    return open_checkpoint(str(laboratory_checkpoint))


@pytest.fixture(scope="module")
def params(checkpoint):
    return checkpoint.load(None, "float32")


def trained(config, setting, seed=0):
    """Adapters as training could leave them: B is not zero."""
    rng = np.random.default_rng(seed)
    initial = lora.init(config, setting, jax.random.key(seed))
    return jax.tree.map(lambda x: np.asarray(x) + rng.normal(0, 0.1, x.shape).astype(np.float32), initial)


def with_merged(params, adapters, setting):
    """The parameters with every adapter added to its weight, a layer at a time."""
    layers = dict(params["layers"])
    for part, projections in adapters["layers"].items():
        for name, pair in projections.items():
            weight = np.asarray(layers[part][name]["weight"])
            each = [
                lora.merged(*matrices, lora.scale(setting))
                for matrices in zip(weight, pair["lora_a"], pair["lora_b"], strict=True)
            ]
            layers[part] = layers[part] | {name: {"weight": np.stack(each)}}
    return params | {"layers": layers}


@functools.partial(jax.jit, static_argnums=1)
def loss(params, config):
    """A number that depends on every logit."""
    return jnp.tanh(decoder.logits(params, config, TOKENS) / 4).sum() / TOKENS.size


@SETTINGS
def test_adapters_beside_the_weights_equal_adapters_in_the_weights(checkpoint, params, setting):
    adapters = trained(checkpoint.config, setting)
    attached = lora.attach(params, adapters, setting)
    logits = jax.jit(decoder.logits, static_argnums=1)
    out = np.asarray(logits(attached, checkpoint.config, TOKENS))
    expected = logits(with_merged(params, adapters, setting), checkpoint.config, TOKENS)
    np.testing.assert_allclose(out, expected, atol=1e-4)
    assert np.abs(out - logits(params, checkpoint.config, TOKENS)).max() > 0.1
    last = np.array([23, 0, 5, 1, 7, 9, 22, 11])
    order = np.broadcast_to(np.arange(TOKENS.shape[1]), TOKENS.shape)
    view = views.PromptTree(order[:, None], np.zeros_like(last)[:, None], last[:, None], order, order)  # a prompt in each row
    hidden, _ = jax.jit(decoder.forward, static_argnums=1)(attached, checkpoint.config, TOKENS, view)
    head = jax.jit(decoder.head, static_argnums=1)
    np.testing.assert_allclose(head(attached, checkpoint.config, hidden)[:, 0], out[np.arange(8), last], atol=1e-4)


@SETTINGS
def test_new_adapters_change_nothing(checkpoint, params, setting):
    adapters = lora.init(checkpoint.config, setting, jax.random.key(0))
    attached = lora.attach(params, adapters, setting)
    logits = jax.jit(decoder.logits, static_argnums=1)
    expected = logits(params, checkpoint.config, TOKENS)
    np.testing.assert_allclose(logits(attached, checkpoint.config, TOKENS), expected, atol=1e-6)
    jax.tree.map(
        np.testing.assert_array_equal,
        with_merged(params, jax.tree.map(np.asarray, adapters), setting),
        params,
    )


def test_adapters_begin_as_torch_begins_them(checkpoint):
    setting = LoraConfig(rank=64, targets=LORA_TARGETS)
    adapters = lora.init(checkpoint.config, setting, jax.random.key(1))
    torch.manual_seed(0)
    for projections in adapters["layers"].values():
        for name, pair in projections.items():
            drawn = np.asarray(pair["lora_a"])
            assert drawn.dtype == pair["lora_b"].dtype == np.float32
            assert not pair["lora_b"].any()
            theirs = torch.nn.init.kaiming_uniform_(torch.empty(64, drawn.shape[2]), a=5**0.5).numpy()
            bound = np.abs(theirs).max()
            assert 0.99 * bound < np.abs(drawn).max() < 1.01 * bound, name
            for layer in drawn:
                assert scipy.stats.ks_2samp(layer.ravel(), theirs.ravel()).pvalue > 1e-4, name


def test_the_beginning_of_an_adapter_depends_on_its_name_alone(checkpoint):
    few, many = (
        lora.init(checkpoint.config, LoraConfig(rank=4, targets=targets), jax.random.key(2))["layers"]
        for targets in (("v_proj", "gate_proj"), LORA_TARGETS[::-1])
    )
    assert set(few) == {"self_attn", "mlp"}
    assert {name for part in many.values() for name in part} == set(LORA_TARGETS)
    for part in few:
        for name, pair in few[part].items():
            jax.tree.map(np.testing.assert_array_equal, pair, many[part][name])
    drawn = [np.asarray(pair["lora_a"])[:, :, :64] for part in many.values() for pair in part.values()]
    matrices = {layer.tobytes() for leaf in drawn for layer in leaf}
    assert len(matrices) == len(LORA_TARGETS) * checkpoint.config.num_layers


def test_parts_without_targets_have_no_adapters(checkpoint):
    assert set(lora.init(checkpoint.config, TWO, jax.random.key(0))["layers"]) == {"self_attn"}
    assert set(lora.init(checkpoint.config, MLP, jax.random.key(0))["layers"]) == {"mlp"}


def test_gradients_reach_what_is_asked_for_and_follow_the_chain_rule(checkpoint, params):
    config, setting, adapters = checkpoint.config, ALL, trained(checkpoint.config, ALL)

    def of_both(params, adapters):
        return loss(lora.attach(params, adapters, setting), config)

    to_adapters = jax.grad(of_both, argnums=1)(params, adapters)
    to_params = jax.grad(of_both)(params, adapters)
    assert jax.tree.structure(to_adapters) == jax.tree.structure(adapters)
    assert jax.tree.structure(to_params) == jax.tree.structure(params)
    # The gradient to a weight is that to W + scale B A; from it follow those to A and B.
    expected = jax.grad(loss)(with_merged(params, adapters, setting), config)
    jax.tree.map(lambda own, wanted: np.testing.assert_allclose(own, wanted, atol=2e-5), to_params, expected)
    for part, projections in adapters["layers"].items():
        for name, pair in projections.items():
            own, to_weight = to_adapters["layers"][part][name], np.asarray(expected["layers"][part][name]["weight"])
            to_a = lora.scale(setting) * pair["lora_b"].swapaxes(1, 2) @ to_weight
            to_b = lora.scale(setting) * to_weight @ pair["lora_a"].swapaxes(1, 2)
            assert min(np.abs(to_a).max(), np.abs(to_b).max()) > 1e-2
            np.testing.assert_allclose(own["lora_a"], to_a, atol=5e-5)
            np.testing.assert_allclose(own["lora_b"], to_b, atol=5e-5)


def test_adapters_of_a_bfloat16_model_stay_float32_and_are_scaled_before_they_are_rounded(checkpoint, params):
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    setting = LoraConfig(rank=3, alpha=1.0)
    adapters = trained(checkpoint.config, setting)
    attached = lora.attach(half, adapters, setting)
    assert {leaf.dtype for leaf in jax.tree.leaves(attached)} == {np.dtype(ml_dtypes.bfloat16)}
    pair, own = attached["layers"]["self_attn"]["v_proj"], adapters["layers"]["self_attn"]["v_proj"]
    np.testing.assert_array_equal(pair["lora_a"], own["lora_a"].astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(pair["lora_b"], (own["lora_b"] / np.float32(3)).astype(ml_dtypes.bfloat16))
    gradient = jax.grad(lambda x: loss(lora.attach(half, x, setting), checkpoint.config))(adapters)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype(np.float32)}
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))
    assert set(params["layers"]["self_attn"]["v_proj"]) == {"weight"}  # what was given is as it was


@given(
    sizes=st.tuples(*[st.integers(1, 6)] * 3),
    seed=st.integers(0, 99),
    scale=st.floats(0.01, 64.0),
    dtype=st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16]),
)
def test_merging_is_the_definition_rounded_once(sizes, seed, scale, dtype):
    outward, rank, inward = sizes
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, (outward, inward)).astype(dtype)
    a, b = (rng.normal(0, 1, shape).astype(np.float32) for shape in ((rank, inward), (outward, rank)))
    out = lora.merged(weight, a, b, scale)
    assert out.dtype == dtype
    for o in range(outward):
        for i in range(inward):
            terms = [float(weight[o, i]), *(scale * float(b[o, r]) * float(a[r, i]) for r in range(rank))]
            rounding = float(ml_dtypes.finfo(dtype).eps) / 2 * abs(sum(terms))
            assert abs(float(out[o, i]) - sum(terms)) <= 1.01 * rounding + 1e-6 * sum(map(abs, terms))


EXPECTED = {
    "q_proj": (P(), P(None, ("tensor", "fsdp"), None)),
    "k_proj": (P(), P(None, ("tensor", "fsdp"), None)),
    "v_proj": (P(), P(None, ("tensor", "fsdp"), None)),
    "o_proj": (P(None, None, "tensor"), P(None, "fsdp", None)),
    "gate_proj": (P(), P(None, ("tensor", "fsdp"), None)),
    "up_proj": (P(), P(None, ("tensor", "fsdp"), None)),
    "down_proj": (P(None, None, "tensor"), P(None, "fsdp", None)),
}


def test_sharded_adapters_equal_unsharded_ones(checkpoint, params):
    config, mesh = checkpoint.config, make_mesh(MeshConfig.parse("data:2,fsdp:2,tensor:2"))
    shardings = lora.shardings(config, ALL, mesh)
    initial = jax.jit(lambda key: lora.init(config, ALL, key), out_shardings=shardings)(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, initial, lora.init(config, ALL, jax.random.key(0)))
    adapters = trained(config, ALL)
    spread = jax.device_put(adapters, shardings)
    spread_params = jax.device_put(params, parameters.param_shardings(config, mesh))
    tokens = jax.device_put(TOKENS, NamedSharding(mesh, P(("data", "fsdp"))))

    def run(placement, params, adapters, tokens):
        def objective(adapters):
            attached = lora.attach(params, adapters, ALL)
            hidden, _ = decoder.forward(attached, config, tokens, views.whole_rows(tokens), placement=placement)
            return jnp.tanh(decoder.head(attached, config, hidden) / 4).sum() / TOKENS.size, hidden

        (_, hidden), gradient = jax.value_and_grad(objective, has_aux=True)(adapters)
        return hidden, gradient

    hidden, gradient = jax.jit(run, static_argnums=0)(Placement(), params, adapters, TOKENS)
    # As in training: the compiler by itself would leave the gradients whole on every device.
    spread_run = jax.jit(run, static_argnums=0, out_shardings=(None, shardings))
    spread_hidden, spread_gradient = spread_run(Placement(mesh, remat="full"), spread_params, spread, tokens)
    np.testing.assert_allclose(spread_hidden, hidden, atol=5e-5)
    jax.tree.map(lambda own, wanted: np.testing.assert_allclose(own, wanted, atol=5e-5), spread_gradient, gradient)
    assert spread_hidden.sharding.is_equivalent_to(NamedSharding(mesh, P(("data", "fsdp"))), hidden.ndim)
    for tree in (spread, initial, spread_gradient):
        found = {name: pair for part in tree["layers"].values() for name, pair in part.items()}
        assert set(found) == set(EXPECTED)
        for name, specs in EXPECTED.items():
            for leaf, spec in zip(("lora_a", "lora_b"), specs, strict=True):
                leaf = found[name][leaf]
                assert leaf.sharding.is_equivalent_to(NamedSharding(mesh, spec), leaf.ndim), name


def test_a_mesh_that_does_not_divide_is_refused(checkpoint):
    with pytest.raises(InputError, match=r"'hidden'.*tensor = 3.*size 160"):
        lora.shardings(checkpoint.config, MLP, make_mesh(MeshConfig.parse("tensor:3"), jax.devices()[:3]))
