"""The backend for CPUs reads a cache a few rows at a time, and of each no more than it uses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from judgelm_jax.config import MeshConfig
from judgelm_jax.model import attention
from judgelm_jax.sharding import make_mesh


@pytest.mark.parametrize(("rows", "mesh"), [(1, None), (3, None), (4, None), (6, (1, 1)), (8, (4, 2))])
def test_one_token_a_row_sees_its_used_slots_as_the_definition_says(rows, mesh):
    rng = np.random.default_rng(rows)
    slots, visible = 400, 390  # views of 128, 256, 384 and 390 slots
    q = rng.standard_normal((rows, 1, 4, 8), np.float32)
    k, v = rng.standard_normal((2, 3, rows, 2, slots, 8), np.float32)
    used = rng.choice([1, 127, 128, 129, 300, 390], rows).astype(np.int32)
    mask = np.arange(visible) < used[:, None, None]
    devices = None
    if mesh is not None:
        data, tensor = mesh
        devices = make_mesh(MeshConfig.parse(f"data:{data},tensor:{tensor}"), jax.devices()[: data * tensor])
    for layer in range(3):
        ours = attention.attend_cache(q, k, v, layer, mask, used, "blocked", devices)
        wanted = attention.attend_cache(q, k, v, jnp.int32(layer), mask, used, "reference")
        np.testing.assert_allclose(ours, wanted, atol=2e-6)


@pytest.mark.parametrize("rows", [3, 4])
def test_several_tokens_a_row_see_what_the_mask_says(rows):
    rng = np.random.default_rng(rows)
    q = rng.standard_normal((rows, 5, 4, 8), np.float32)
    k, v = rng.standard_normal((2, 2, rows, 2, 24, 8), np.float32)
    mask = rng.random((rows, 5, 20)) < 0.5
    mask[..., 0] = True
    ours = attention.attend_cache(q, k, v, 1, mask, None, "blocked")
    np.testing.assert_allclose(ours, attention.attend_cache(q, k, v, 1, mask, None, "reference"), atol=2e-6)
