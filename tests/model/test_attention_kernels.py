"""The kernels of Pallas, interpreted on a CPU, against the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.model import attention, decoder, parameters, views
from judgelm_jax.model import cache as kv_cache
from judgelm_jax.model.attention import choice, gpu, pages, tpu
from judgelm_jax.model.config import Limits, ModelConfig
from judgelm_jax.model.placement import Placement

KERNELS = {"pallas": gpu, "splash": tpu}
# Compiled whole: step by step there would be a program for each operation.
attend = jax.jit(attention.attend, static_argnames=("backend", "limits"))
attend_cache = jax.jit(attention.attend_cache, static_argnames=("backend", "limits"))
SEGMENTS = jnp.asarray(np.repeat([[1, 1, 2, 3], [1, 2, 2, 0]], 64, axis=1), jnp.int32)


@pytest.fixture
def interpreted(monkeypatch):
    """`attend` and `attend_cache` with kernels that a CPU interprets."""
    for kernels in KERNELS.values():
        monkeypatch.setattr(kernels, "prefill", functools.partial(kernels.prefill, interpret=True))
    monkeypatch.setattr(gpu, "decode", functools.partial(gpu.decode, interpret=True))
    compiled = tpu.decode

    def decode(*args, **named):
        with pltpu.force_tpu_interpret_mode():  # this kernel has no argument for it
            return compiled(*args, **named)

    monkeypatch.setattr(tpu, "decode", decode)


def normal(seed, *shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


@pytest.mark.parametrize("segments", [None, SEGMENTS], ids=["whole", "packed"])
@pytest.mark.parametrize("backend", KERNELS)
def test_prefill_and_its_gradient_equal_the_reference(backend, segments):
    q, k, v = normal(0, 2, 256, 4, 32), normal(1, 2, 2, 256, 32), normal(2, 2, 2, 256, 32)  # two query heads share keys

    def outcome(attend):
        def run(*qkv):
            out, pull_back = jax.vjp(attend, *qkv)
            return out, *pull_back(jnp.cos(out))

        return jax.jit(run)(q, k, v)

    kernel = outcome(lambda *qkv: KERNELS[backend].prefill(*qkv, segments, interpret=True))
    wanted = outcome(lambda *qkv: attention.attend(*qkv, None, "reference", segments))
    for ours, theirs in zip(kernel, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("limits", [Limits(window=100), Limits(130, 0.8)], ids=["window", "both"])
def test_splash_has_windows_and_soft_caps(limits):
    q, k, v = normal(0, 1, 256, 2, 16), normal(1, 1, 1, 256, 16), normal(2, 1, 1, 256, 16)

    def outcome(attend):
        def run(*qkv):
            out, pull_back = jax.vjp(attend, *qkv)
            return out, *pull_back(jnp.cos(out))

        return jax.jit(run)(q, k, v)

    kernel = outcome(lambda *qkv: tpu.prefill(*qkv, None, limits, interpret=True))
    wanted = outcome(lambda *qkv: attention.attend(*qkv, None, "reference", limits=limits))
    for ours, theirs in zip(kernel, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("backend", KERNELS)
def test_decoding_kernels_have_soft_caps_and_leave_windows_to_xla(interpreted, caplog, backend):
    choice.log_once.cache_clear()
    slots, used = 64, jnp.array([50], jnp.int32)
    k, v = normal(0, 1, 1, 1, slots, 128, dtype=jnp.bfloat16), normal(1, 1, 1, 1, slots, 128, dtype=jnp.bfloat16)
    q, mask = 4 * normal(2, 1, 1, 1, 128, dtype=jnp.bfloat16), attention.cache_mask(used[:, None] - 1, slots)
    for limits, seen in ((Limits(softcap=0.8), mask), (Limits(20, 0.8), mask & (jnp.arange(slots) >= 30))):
        ours = attention.attend_cache(q, k, v, jnp.int32(0), seen, used, backend, limits=limits)
        wanted = attend_cache(q, k, v, jnp.int32(0), seen, used, "reference", limits=limits)
        np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (ours, wanted)), atol=0.03)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said == f"the attention backend {backend} reads whole caches: it has no window of 20 tokens over a cache"


@pytest.mark.parametrize("length", [1, 200])
@pytest.mark.parametrize("backend", KERNELS)
def test_rows_of_any_length_are_filled_up_and_cut_again(interpreted, backend, length):
    q, k, v = (normal(n, 1, *shape, dtype=jnp.bfloat16) for n, shape in enumerate([(length, 2, 16), *[(2, length, 16)] * 2]))
    segments = jnp.arange(length)[None] // 60
    ours, wanted = attention.attend(q, k, v, None, backend, segments), attend(q, k, v, None, "reference", segments)
    assert ours.shape == q.shape
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (ours, wanted)), atol=0.03)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("backend", KERNELS)
def test_devices_share_batch_and_heads(interpreted, backend, packed):
    mesh = make_mesh(MeshConfig.parse("data:2,tensor:2"), jax.devices()[:4])
    q, k, v = (normal(n, *shape, dtype=jnp.bfloat16) for n, shape in enumerate([(2, 256, 4, 16), *[(2, 2, 256, 16)] * 2]))
    segments = SEGMENTS if packed else None
    run = jax.jit(lambda q, k, v: attention.attend(q, k, v, None, backend, segments, mesh=mesh))
    lies = NamedSharding(mesh, P(("data", "fsdp"), None, "tensor"))
    ours = run(jax.device_put(q, lies), k, v)
    assert ours.sharding.is_equivalent_to(lies, 4)
    wanted = attend(q, k, v, None, "reference", segments)
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (ours, wanted)), atol=0.03)


# A cache of 1,040 slots is read 128 (GPU) or 512 (TPU) at a time, from pages of 16.
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("backend", KERNELS)
def test_decoding_reads_the_used_slots_only(interpreted, backend, groups):
    used, slots, kv_heads = np.array([1, 500, 1040]), 1040, 2
    k, v = (np.random.default_rng(n).normal(size=(3, 3, kv_heads, slots, 128)) for n in (0, 1))  # [L, B, K, T, D]
    q = normal(2, 3, 1, kv_heads * groups, 128, dtype=jnp.bfloat16)
    clean = [jnp.asarray(x, jnp.bfloat16) for x in (k, v)]
    for x in (k, v):
        x[[0, 2]] = np.nan  # other layers
        for row, count in enumerate(used):
            x[1, row, :, count:] = 1e4  # a tile is read to its end
            x[1, row, :, -(-count // 512) * 512 :] = np.nan
    stale = [jnp.asarray(x, jnp.bfloat16) for x in (k, v)]
    counts = jnp.asarray(used, jnp.int32)
    mask = attention.cache_mask(counts[:, None] - 1, slots)
    ours = attention.attend_cache(q, *stale, jnp.int32(1), mask, counts, backend)
    wanted = attend_cache(q, *clean, jnp.int32(1), mask, counts, "reference")
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (ours, wanted)), atol=0.03)


def int8_cache(slots):
    """k and v int8 [1, 2, 2, slots, 128], their scales, and how many slots of each row are used."""
    rng = np.random.default_rng(0)
    k, v = (jnp.asarray(rng.integers(-127, 128, (1, 2, 2, slots, 128)), jnp.int8) for _ in range(2))
    k_scale, v_scale = (jnp.asarray(np.exp(rng.normal(-5, 0.5, (1, 2, 2, slots))), jnp.float32) for _ in range(2))
    return (k, v), (k_scale, v_scale), jnp.array([3, slots - 7], jnp.int32)


def test_the_kernel_for_gpus_reads_an_int8_cache(interpreted, caplog):
    choice.log_once.cache_clear()
    slots = 272  # pages of 16
    vectors, scales, used = int8_cache(slots)
    q, mask = normal(2, 2, 1, 4, 128, dtype=jnp.bfloat16), attention.cache_mask(used[:, None] - 1, slots)
    ours = attention.attend_cache(q, *vectors, jnp.int32(0), mask, used, "pallas", scales=scales)
    wanted = attend_cache(q, *vectors, jnp.int32(0), mask, used, "reference", scales=scales)
    assert not caplog.records
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (ours, wanted)), atol=0.03)


def test_the_kernel_for_gpus_splits_an_int8_cache_over_devices(interpreted):
    mesh = make_mesh(MeshConfig.parse("data:2,tensor:2"), jax.devices()[:4])
    slots = 128
    vectors, scales, used = int8_cache(slots)
    q, mask = normal(2, 2, 1, 4, 128, dtype=jnp.bfloat16), attention.cache_mask(used[:, None] - 1, slots)
    attend = jax.jit(lambda q, v, s: attention.attend_cache(q, *v, jnp.int32(0), mask, used, "pallas", mesh, scales=s))
    wanted = attend_cache(q, *vectors, jnp.int32(0), mask, used, "reference", scales=scales)
    np.testing.assert_allclose(*(np.asarray(x, np.float32) for x in (attend(q, vectors, scales), wanted)), atol=0.03)


def test_the_kernel_for_tpus_leaves_an_int8_cache_to_xla_and_says_so(caplog):
    choice.log_once.cache_clear()
    slots = 64
    vectors, scales, used = int8_cache(slots)
    q, mask = normal(2, 2, 1, 4, 128, dtype=jnp.bfloat16), attention.cache_mask(used[:, None] - 1, slots)
    ours, wanted = (
        attention.attend_cache(q, *vectors, jnp.int32(0), mask, used, name, scales=scales) for name in ("splash", "xla")
    )
    np.testing.assert_array_equal(ours, wanted)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("the attention backend splash reads whole caches: the kernel wants the scale of an int8 vector")


@settings(max_examples=6)
@given(
    layer=st.integers(0, 2), rows=st.integers(1, 5), tiles=st.integers(1, 70), multiple=st.sampled_from([1, 8, 32]),
    width=st.just(2),
)  # fmt: skip
def test_the_page_table_finds_every_slot_of_its_row(layer, rows, tiles, multiple, width):
    slots = 16 * tiles
    size = pages.page_size(slots, 512)
    cache = np.arange(3 * rows * slots * width).reshape(3, rows, 1, slots, width)
    table = np.asarray(jax.jit(pages.table, static_argnums=(1, 2, 3))(layer, rows, slots // size, multiple))
    assert table.shape[1] % multiple == 0
    found = np.asarray(pages.as_pages(cache, size))[0, table].reshape(rows, -1, width)
    np.testing.assert_array_equal(found[:, :slots], cache[layer, :, 0])


@pytest.mark.parametrize("backend", KERNELS)
def test_caches_that_have_no_pages_are_read_whole_and_that_is_said_once(interpreted, caplog, backend):
    choice.log_once.cache_clear()
    slots, used = 40, jnp.array([7], jnp.int32)  # 40 slots: pages of 8
    k, v = normal(0, 1, 1, 1, slots, 128, dtype=jnp.bfloat16), normal(1, 1, 1, 1, slots, 128, dtype=jnp.bfloat16)
    q, mask = normal(2, 1, 1, 1, 128, dtype=jnp.bfloat16), attention.cache_mask(used[:, None] - 1, slots)
    for _ in range(2):
        ours = attention.attend_cache(q, k, v, jnp.int32(0), mask, used, backend)
        np.testing.assert_array_equal(ours, attention.attend_cache(q, k, v, jnp.int32(0), mask, used, "xla"))
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(f"the attention backend {backend} reads whole caches: a cache of 40 slots has no pages")


def test_what_the_kernels_cannot_read_is_refused():
    half = jnp.bfloat16
    gpu.refuse_decode(64, 2560, 128, half)
    tpu.refuse_decode(8192, 1152, 128, half)
    with pytest.raises(ValueError, match="heads of 80"):
        gpu.refuse_decode(64, 2560, 80, half)
    with pytest.raises(ValueError, match="heads of 64"):
        tpu.refuse_decode(64, 2560, 64, half)
    with pytest.raises(ValueError, match="8192 rows times heads"):
        tpu.refuse_decode(8192, 528, 128, half)  # pages of 16
    with pytest.raises(ValueError, match="no pages"):
        gpu.refuse_decode(64, 1000, 128, half)
    q, cache, used = jnp.zeros((1, 2, 1, 16)), jnp.zeros((1, 1, 1, 16, 16)), jnp.ones(1, jnp.int32)
    with pytest.raises(ValueError, match="one token a row"):
        attention.attend_cache(q, cache, cache, jnp.int32(0), jnp.ones((1, 2, 16), bool), used, "xla")


def test_a_row_that_has_ended_uses_one_slot():
    view = views.in_order(jnp.array([[0], [6], [7], [9]]), 7)
    np.testing.assert_array_equal(view.used, [1, 7, 1, 1])
    np.testing.assert_array_equal(view.mask.sum(axis=2)[:2, 0], view.used[:2])
    assert views.in_order(jnp.array([[0, 1]]), 7).used is None


@pytest.mark.parametrize("backend", KERNELS)
def test_the_model_prefills_and_decodes_as_without_kernels(interpreted, backend):
    config = ModelConfig(
        vocab_size=50, hidden_size=256, intermediate_size=64, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=128,
        context=64, norm_epsilon=1e-6, rope_base=10000.0, rope_scaling=None, tied_embeddings=False, bos_id=1, eos_ids=(2,),
    )  # fmt: skip
    params = parameters.init_params(config, jax.random.key(0), jnp.bfloat16)
    tokens = jnp.asarray(np.random.default_rng(0).integers(3, 50, (2, 20)))

    @functools.partial(jax.jit, static_argnums=1)
    def run(params, name):
        placement = Placement(attention=name)
        empty = kv_cache.empty(config, 2, 32, jnp.bfloat16)
        _, cache = decoder.forward(params, config, tokens, views.whole_rows(tokens), empty, placement)
        view = views.in_order(jnp.array([[20], [13]]), 24)
        return decoder.forward(params, config, tokens[:, :1], view, cache, placement)[0].astype(jnp.float32)

    np.testing.assert_allclose(run(params, backend), run(params, "reference"), atol=0.1)
