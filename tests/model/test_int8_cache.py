"""The cache as whole numbers of 8 bits against the same numbers written out by hand."""

import dataclasses

import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jax.sharding import NamedSharding

from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh, spec
from judgelm_jax.model import attention, quantization, views
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model.config import Limits, ModelConfig
from judgelm_jax.model.placement import Placement

LAYERS, ROWS, HEADS, GROUPS, SLOTS, WIDTH = 2, 4, 2, 2, 24, 16
CONFIG = ModelConfig(
    vocab_size=50, hidden_size=64, intermediate_size=64, num_layers=LAYERS, num_heads=HEADS * GROUPS, num_kv_heads=HEADS,
    head_dim=WIDTH, context=64, norm_epsilon=1e-6, rope_base=10000.0, rope_scaling=None, tied_embeddings=False, bos_id=1,
    eos_ids=(2,),
)  # fmt: skip
finite = st.floats(-(2.0**100), 2.0**100, width=32)


def rounded(vectors):
    """What int8 stands for of vectors [..., D], by hand in float64."""
    steps = np.abs(vectors.astype(np.float64)).max(axis=-1, keepdims=True) / 127
    return np.round(vectors / np.where(steps, steps, 1)) * steps


def written_out(cache, name):
    """float64 [L, B, K, T, D] of an int8 cache."""
    whole, scales = (np.stack([np.asarray(x, np.float64) for x in cache[key]]) for key in (name, f"{name}_scale"))
    return whole * scales[..., None]


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@jax.jit
def in_int8(vectors):
    scales = quantization.step_sizes(vectors)
    return quantization.in_steps(vectors, scales), scales


@given(vectors=arrays.arrays(np.float32, (4, 3), elements=finite))
@example(vectors=np.zeros((4, 3), np.float32))
@example(vectors=np.full((4, 3), 1e-45, np.float32))
@example(vectors=np.array([[3.4e38, -3.4e38, 1.0]] * 4, np.float32))
def test_no_number_is_off_by_more_than_half_a_step(vectors):
    whole, scales = map(np.asarray, in_int8(vectors))
    assert whole.dtype == np.int8
    assert scales.dtype == np.float32
    assert np.abs(whole.astype(int)).max() <= 127
    back = whole * scales.astype(np.float64)[:, None]
    largest = np.abs(vectors).max(axis=1)
    bound = np.where(largest < 1e-35, 1e-35, largest / 254 * (1 + 1e-5))
    assert (np.abs(back - vectors) <= bound[:, None]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_does_not_become_finite(value):
    whole, scales = in_int8(np.array([[1.0, value, 2.0]] * 4, np.float32))
    assert not np.isfinite(whole * scales[:, None]).all(axis=1).any()


@pytest.mark.parametrize("unstacked", [False, True])
def test_every_way_into_the_cache_rounds_its_own_rows_and_slots_only(unstacked):
    k, v, more, later, new, newer = (normal(n, ROWS, HEADS, slots, WIDTH) for n, slots in enumerate([6, 6, 5, 5, 1, 1]))

    @jax.jit
    def run():
        cache = kv_cache.begin(kv_cache.empty(CONFIG, ROWS, SLOTS, jnp.int8, unstacked=unstacked), 1, k, v)
        fresh = kv_cache.empty(CONFIG, ROWS, 5, jnp.float32, unstacked=unstacked)
        fresh = kv_cache.begin(kv_cache.begin(fresh, 0, more, later), 1, later, more)
        cache = kv_cache.insert(cache, jnp.array([2, 0, ROWS, ROWS]), fresh)  # two of them are padding
        return kv_cache.write(cache, 0, jnp.array([[7], [0], [SLOTS], [23]]), new, newer)  # the third has ended

    cache = run()
    assert kv_cache.slots_of(cache) == SLOTS
    wanted = {name: np.zeros((LAYERS, ROWS, HEADS, SLOTS, WIDTH)) for name in ("k", "v")}
    wanted["k"][1, :, :, :6], wanted["v"][1, :, :, :6] = rounded(k), rounded(v)
    for layer, (keys, values) in enumerate([(more, later), (later, more)]):
        wanted["k"][layer, [2, 0], :, :5], wanted["v"][layer, [2, 0], :, :5] = rounded(keys[:2]), rounded(values[:2])
    for row, slot in ((0, 7), (1, 0), (3, 23)):
        wanted["k"][0, row, :, slot], wanted["v"][0, row, :, slot] = rounded(new[row, :, 0]), rounded(newer[row, :, 0])
    for name in ("k", "v"):
        np.testing.assert_allclose(written_out(cache, name), wanted[name], atol=1e-6)


def by_hand(q, k, v, seen, softcap=None):
    """float64 [B, S, H, D]: attention of each query alone over vectors that are written out [B, K, T, D]."""
    out = np.zeros(q.shape)
    for row, query, head in np.ndindex(q.shape[:3]):
        keys, values = (x[row, head // GROUPS][seen[row, query]] for x in (k, v))
        scores = keys @ q[row, query, head].astype(np.float64) * WIDTH**-0.5
        scores = scores if softcap is None else np.tanh(scores / softcap) * softcap
        weights = np.exp(scores - scores.max())
        out[row, query, head] = weights @ values / weights.sum()
    return out


def random_cache(seed):
    """An int8 cache whose vectors are of very different length."""
    rng = np.random.default_rng(seed)
    shape = (LAYERS, ROWS, HEADS, SLOTS)
    whole = {name: jnp.asarray(rng.integers(-127, 128, (*shape, WIDTH)), jnp.int8) for name in ("k", "v")}
    return whole | {f"{name}_scale": jnp.asarray(np.exp(rng.normal(-4, 1, shape)), jnp.float32) for name in ("k", "v")}


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("limits", [Limits(), Limits(window=5), Limits(softcap=0.7)], ids=["all", "window", "capped"])
@pytest.mark.parametrize("backend", ["reference", "xla", "blocked"])
def test_attention_equals_that_over_numbers_written_out(backend, limits, queries):
    cache = random_cache(0)
    k_new, v_new = (normal(n, ROWS, queries, HEADS, WIDTH) for n in (1, 2))
    q = 3 * normal(3, ROWS, queries, HEADS * GROUPS, WIDTH)
    positions = np.array([0, 5, 9, SLOTS - queries])[:, None] + np.arange(queries)
    view = views.in_order(jnp.asarray(positions), SLOTS)
    attend = jax.jit(lambda *qkv: view.attend(*qkv, cache, 1, Placement(attention=backend), limits))
    found, after = attend(q, k_new, v_new)

    k, v = (written_out(cache, name)[1] for name in ("k", "v"))
    for row, query in np.ndindex(positions.shape):
        k[row, :, positions[row, query]], v[row, :, positions[row, query]] = (
            rounded(k_new[row, query]),
            rounded(v_new[row, query]),
        )
    slots = np.arange(SLOTS)
    seen = slots <= positions[..., None]
    if limits.window is not None:
        seen &= slots > positions[..., None] - limits.window
    expected = by_hand(q, k, v, seen, limits.softcap)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-5)
    np.testing.assert_allclose(written_out(after, "k")[1], k, atol=1e-6)
    assert all(after[name].dtype == cache[name].dtype for name in cache)


def test_queries_of_bfloat16_read_an_int8_cache():
    cache = random_cache(4)
    q = jnp.asarray(normal(5, ROWS, 1, HEADS * GROUPS, WIDTH), jnp.bfloat16)
    mask = attention.cache_mask(jnp.full((ROWS, 1), SLOTS - 1), SLOTS)
    scales = cache["k_scale"], cache["v_scale"]
    attend = jax.jit(lambda *held: attention.attend_cache(q, *held, 0, mask, None, "blocked", scales=scales))
    found = attend(cache["k"], cache["v"])
    expected = by_hand(np.asarray(q, np.float32), *(written_out(cache, name)[0] for name in ("k", "v")), np.asarray(mask))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=2**-7 * np.abs(expected).max())


@pytest.mark.parametrize("backend", ["xla", "blocked"])
def test_a_mesh_splits_numbers_and_scales_alike(backend):
    mesh = make_mesh(MeshConfig.parse("data:2,fsdp:2,tensor:2"))
    cache = random_cache(6)
    placed = {
        name: jax.device_put(held, NamedSharding(mesh, spec(axes)))
        for (name, held), axes in zip(cache.items(), kv_cache.axes(cache).values(), strict=True)
    }
    assert {name: held.addressable_shards[0].data.shape[1:3] for name, held in placed.items()} == dict.fromkeys(cache, (1, 1))
    q, k, v = (normal(n, ROWS, 1, heads, WIDTH) for n, heads in enumerate([HEADS * GROUPS, HEADS, HEADS]))
    view = views.in_order(jnp.array([[3], [9], [SLOTS], [20]]), SLOTS)

    def run(cache, mesh):
        return jax.jit(lambda cache: view.attend(q, k, v, cache, 1, Placement(mesh, backend)))(cache)

    (alone, own), (split, theirs) = run(cache, None), run(placed, mesh)
    np.testing.assert_allclose(split, alone, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, theirs, own)
    assert all(theirs[name].sharding.is_equivalent_to(placed[name].sharding, placed[name].ndim) for name in cache)


@pytest.mark.parametrize("unstacked", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_memory_of_a_slot_is_what_its_arrays_take(dtype, unstacked):
    cache = kv_cache.empty(CONFIG, ROWS, SLOTS, dtype, unstacked=unstacked)
    taken = sum(array.nbytes for array in jax.tree.leaves(cache))
    assert taken == ROWS * SLOTS * kv_cache.bytes_per_token(CONFIG, dtype)


def test_of_heads_of_128_it_is_half_of_bfloat16_and_a_64th():
    config = dataclasses.replace(CONFIG, head_dim=128)
    small, half = (kv_cache.bytes_per_token(config, dtype) for dtype in ("int8", "bfloat16"))
    assert small / half == 1 / 2 + 1 / 64
