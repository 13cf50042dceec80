"""What a layer declares is all that anybody knows of a tensor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from judgelm_jax.checkpoints.tensor_names import tensor_table
from judgelm_jax.model import layers, lora, parameters
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.training.throughput import step_flops
from judgelm_jax.training_config import LoraConfig

CONFIG = ModelConfig(32, 16, 24, 2, 2, 1, 8, 64, 1e-5, 1e4, None, False, 1, (2,))
SETTINGS = LoraConfig(rank=3, targets=("q_proj", "down_proj"))


@pytest.fixture
def biased(monkeypatch):
    """A model whose queries have a bias, as the layer alone declares it."""
    real = layers.Attention.__init__

    def with_bias(self, config, adapted):
        real(self, config, adapted)
        self.q_proj.bias = layers._declare((config.num_heads * config.head_dim,), ("heads",), constant=0.0)

    monkeypatch.setattr(layers.Attention, "__init__", with_bias)
    parameters.declared.cache_clear()
    yield
    parameters.declared.cache_clear()


def flops():
    return step_flops(CONFIG, tokens=8, squares=34, targets=4, adapters_only=False)


def test_a_tensor_that_a_layer_declares_is_known_everywhere(request):
    before, counted = tensor_table(CONFIG), flops()
    request.getfixturevalue("biased")
    table = tensor_table(CONFIG)
    new = {name: spec for name, spec in table.items() if name not in before}
    assert {name: (spec.path[-2:], spec.layer, spec.shape) for name, spec in new.items()} == {
        f"model.layers.{layer}.self_attn.q_proj.bias": (("q_proj", "bias"), layer, (16,)) for layer in range(2)
    }
    assert parameters.param_axes(CONFIG)["layers"]["self_attn"]["q_proj"]["bias"] == ("layer", "heads")
    params = parameters.init_params(CONFIG, jax.random.key(0), jnp.float32)
    assert not np.any(params["layers"]["self_attn"]["q_proj"]["bias"])
    assert flops() == counted  # nothing is multiplied with it


def test_a_bias_gets_no_adapter(biased):
    pairs = lora.pairs(CONFIG, SETTINGS)
    weights = {("layers", "self_attn", "q_proj", "weight"), ("layers", "mlp", "down_proj", "weight")}
    assert set(pairs) == weights
    assert pairs["layers", "mlp", "down_proj", "weight"] == tuple(
        ("layers", "mlp", "down_proj", half) for half in ("lora_a", "lora_b")
    )
    assert {path: tensor.shape for path, tensor in lora.declared(CONFIG, SETTINGS).items()} == {
        ("layers", "self_attn", "q_proj", "lora_a"): (2, 3, 16),
        ("layers", "self_attn", "q_proj", "lora_b"): (2, 16, 3),
        ("layers", "mlp", "down_proj", "lora_a"): (2, 3, 24),
        ("layers", "mlp", "down_proj", "lora_b"): (2, 16, 3),
    }


def test_parameters_of_a_seed_are_the_same_and_differ_between_leaves():
    one, two = (parameters.init_params(CONFIG, jax.random.key(3), jnp.float32) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert not np.array_equal(one["layers"]["mlp"]["gate_proj"]["weight"], one["layers"]["mlp"]["up_proj"]["weight"])
    assert one["layers"]["mlp"]["up_proj"]["weight"].std() == pytest.approx(0.02, rel=0.1)
    assert (one["norm"]["weight"] == 1).all()


def test_the_order_is_that_of_the_forward_pass():
    names = [".".join(path[:-1]) for path in parameters.declared(CONFIG)]
    assert names == [
        "embed_tokens", "layers.input_layernorm", "layers.self_attn.q_proj", "layers.self_attn.k_proj",
        "layers.self_attn.v_proj", "layers.self_attn.o_proj", "layers.post_attention_layernorm", "layers.mlp.gate_proj",
        "layers.mlp.up_proj", "layers.mlp.down_proj", "norm", "lm_head",
    ]  # fmt: skip
