"""Products with weights, and their gradients, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from judgelm_jax.model import decoder, parameters
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.matrix_product import product
from judgelm_jax.model.placement import Placement

MODEL = ModelConfig(32, 16, 24, 2, 2, 1, 8, 64, 1e-5, 1e4, None, False, 1, (2,))


@pytest.mark.parametrize("on_cpus", [False, True])
@pytest.mark.parametrize("shape", [(40,), (5, 40), (2, 3, 40)])
@pytest.mark.parametrize("out", [6, 80])
@pytest.mark.parametrize(("dtype", "rounding"), [("float32", 2.0**-23), ("bfloat16", 2.0**-8)])
def test_a_product_and_its_gradients(dtype, rounding, out, shape, on_cpus):
    rng = np.random.default_rng(0)
    x, weight = (jnp.asarray(rng.normal(size=size), dtype) for size in (shape, (out, 40)))
    cotangent = jnp.asarray(rng.normal(size=(*shape[:-1], out)), dtype)
    with jax.default_matmul_precision("highest"):
        found, pull = jax.vjp(lambda x, weight: product(x, weight, on_cpus), x, weight)
        of_x, of_weight = pull(cotangent)
    exact_x, exact_weight, exact_cotangent = (np.asarray(array, np.float64) for array in (x, weight, cotangent))
    rows, cotangents = exact_x.reshape(-1, 40), exact_cotangent.reshape(-1, out)
    for array, exact in (
        (found, exact_x @ exact_weight.T),
        (of_x, exact_cotangent @ exact_weight),
        (of_weight, cotangents.T @ rows),
    ):
        assert array.dtype == dtype
        assert array.shape == exact.shape
        np.testing.assert_allclose(np.asarray(array, np.float64), exact, rtol=rounding, atol=3e-5)


def test_on_cpus_the_compiler_is_asked_for_results_in_float32():
    """Of bfloat16, that is: without gradients float32 has the same program either way."""

    def text(dtype: str, on_cpus: bool) -> str:
        arguments = (jnp.zeros((4, 8), dtype), jnp.zeros((6, 8), dtype))
        return jax.jit(lambda x, weight: product(x, weight, on_cpus)).lower(*arguments).as_text()

    assert text("float32", True) == text("float32", False)
    assert "tensor<4x6xf32>" in text("bfloat16", True)
    assert "f32" not in text("bfloat16", False)


@pytest.mark.parametrize("out", [6, 20])
def test_on_cpus_the_side_with_fewer_columns_comes_first_where_rows_are_summed(out):
    """The first is the one that XLA writes column by column."""
    of_weight = jax.grad(lambda weight, x: product(x, weight, True).sum())
    equations = jax.make_jaxpr(of_weight)(jnp.zeros((out, 8)), jnp.ones((4, 8))).eqns
    products = [one for one in equations if one.primitive.name == "dot_general"]
    (over_rows,) = [one for one in products if one.params["dimension_numbers"][0] == ((0,), (0,))]
    assert over_rows.invars[0].aval.shape == (4, min(out, 8))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_a_backward_pass_computes_as_much_again_as_elsewhere(remat, dtype, one_device):
    params = parameters.init_params(MODEL, jax.random.key(0), dtype)

    def products(mesh):
        def loss(params):
            return decoder.logits(params, MODEL, jnp.ones((2, 8), int), Placement(mesh, "xla", remat)).sum()

        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general[")

    assert products(one_device) == products(None)
