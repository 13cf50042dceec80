"""int8 weights against the arithmetic done by hand, and against Hugging Face with weights rounded by hand."""

import dataclasses

import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from family_models import CASES, make
from hypothesis import example, given
from hypothesis import strategies as st

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.quantizing import in_int8
from judgelm_jax.model import decoder, parameters
from judgelm_jax.model.placement import Placement
from judgelm_jax.model.quantization import product, quantized, rows

QUICK = ("qwen2, windows last", "gemma2")  # between them: biases, tied and other tables, windows, norms behind, soft caps
TOKENS = np.random.default_rng(0).integers(3, 96, (2, 40))


def by_hand(weight):
    """The matrix that int8 stands for, row by row, in float64: whole numbers of -127 to 127 times a 127th of the largest."""
    result = np.zeros(weight.shape)
    for number, row in enumerate(weight.astype(np.float64)):
        step = max(abs(value) for value in row) / 127
        result[number] = [round(value / step) * step if step else 0.0 for value in row]
    return result


finite = st.floats(-(2.0**100), 2.0**100, width=32)


@given(weight=arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=finite))
@example(weight=np.zeros((2, 3), np.float32))
@example(weight=np.full((1, 1), 1e-45, np.float32))
@example(weight=np.array([[3.4e38, -3.4e38, 1.0]], np.float32))
def test_no_value_is_off_by_more_than_half_a_step(weight):
    whole, scale = quantized(weight)
    assert whole.dtype == np.int8
    assert scale.dtype == np.float32
    assert np.isfinite(scale).all()
    assert (scale > 0).all()
    assert np.abs(whole.astype(int)).max() <= 127
    largest = np.abs(weight).max(axis=1)
    tiny = largest < 1e-35
    assert (np.abs(whole[~tiny].astype(int)).max(axis=1, initial=127) == 127).all()
    back = whole * scale.astype(np.float64)[:, None]
    bound = np.where(tiny, 1e-35, largest / 254 * (1 + 1e-5))
    assert (np.abs(back - weight) <= bound[:, None]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_numbers_are_those_of_a_calculation_by_hand(dtype):
    weight = np.random.default_rng(1).normal(size=(7, 33)).astype(dtype)
    whole, scale = quantized(weight)
    np.testing.assert_allclose(whole * scale[:, None], by_hand(weight), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_and_rows(dtype):
    rng = np.random.default_rng(2)
    whole, scale = quantized(rng.normal(size=(6, 40)).astype(np.float32))
    matrix = whole.astype(np.float64) * scale[:, None]
    x = jnp.asarray(rng.normal(size=(3, 5, 40)), dtype)
    with jax.default_matmul_precision("highest"):
        found = product(x, jnp.asarray(whole), jnp.asarray(scale))
    assert found.dtype == jnp.float32
    # Whole numbers are exact in bfloat16, and so are products of two of its numbers in float32: only sums are rounded.
    np.testing.assert_allclose(found, np.asarray(x, np.float64) @ matrix.T, atol=3e-5)
    which = jnp.array([[0, 5, 5], [1, 2, 3]])
    np.testing.assert_allclose(rows(jnp.asarray(whole), jnp.asarray(scale), which), matrix[np.asarray(which)], rtol=1e-6)


def round_by_hand(model):
    """Puts what int8 stands for in place of every matrix of a PyTorch model."""
    done = set()
    for parameter in model.parameters():
        if parameter.ndim == 2 and id(parameter) not in done:
            done.add(id(parameter))
            parameter.data = torch.tensor(by_hand(parameter.detach().numpy()), dtype=torch.float32)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in QUICK else [pytest.mark.slow, pytest.mark.optimized]) for case in CASES]
)
def test_logits_equal_those_of_hugging_face_with_weights_rounded_by_hand(case, tmp_path):
    theirs = make(case, tmp_path)
    checkpoint = in_int8(open_checkpoint(str(tmp_path)))
    assert checkpoint.config.int8
    with torch.no_grad():
        exact = theirs(torch.tensor(TOKENS), use_cache=False).logits.numpy()
        round_by_hand(theirs)
        expected = theirs(torch.tensor(TOKENS), use_cache=False).logits.numpy()
    params = checkpoint.load(None, "float32")
    found = jax.jit(decoder.logits, static_argnums=(1, 3))(params, checkpoint.config, TOKENS, Placement(attention="blocked"))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(found - exact).max() > 1e-3  # int8 is not what was there


def test_every_matrix_is_int8_and_nothing_else(tmp_path):
    make("qwen2", tmp_path)  # biases, and an output matrix of its own
    config = open_checkpoint(str(tmp_path)).config
    plain, small = (parameters.declared(dataclasses.replace(config, int8=int8)) for int8 in (False, True))
    matrices = {path for path, tensor in plain.items() if tensor.is_matrix}
    assert {path for path, tensor in small.items() if tensor.dtype == jnp.int8} == matrices
    assert small.keys() - plain.keys() == {(*path[:-1], "scale") for path in matrices}
    assert all(tensor.dtype is None for path, tensor in small.items() if path[-1] not in ("weight", "scale"))
    norms = {path for path in plain if "norm" in path[-2]}
    assert norms
    assert all(small[path].dtype is None for path in norms)
