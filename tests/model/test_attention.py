import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.model import attention
from judgelm_jax.model.attention import choice, products
from judgelm_jax.model.config import Limits

# Not jitted they would be compiled again for each example: a loop is.
attend = jax.jit(attention.attend, static_argnums=4)
HERE = ("reference", "xla", "blocked")  # those that a CPU has; the others: test_attention_kernels, test_attention_compiled


def by_hand(q, k, v, positions, window=None, softcap=None):
    """The definition, one query at a time, in float64."""
    out = np.zeros(q.shape)
    groups = q.shape[2] // k.shape[2]
    for b, s, h in np.ndindex(q.shape[:3]):
        end = positions[b, s] + 1
        first = 0 if window is None else max(0, end - window)
        keys, values = k[b, first:end, h // groups], v[b, first:end, h // groups]
        scores = keys @ q[b, s, h] / np.sqrt(q.shape[3])
        weights = np.exp(scores if softcap is None else softcap * np.tanh(scores / softcap))
        out[b, s, h] = weights @ values / weights.sum()
    return out


def arrays(seed, batch, queries, keys, kv_heads, groups, width):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(batch, queries, kv_heads * groups, width))
    k, v = rng.normal(size=(2, batch, keys, kv_heads, width))
    return q, k, v


def in_layout(q, k, v, dtype=jnp.float32):
    """Queries [B, S, H, D] as they are, keys and values [B, T, K, D] in the layout of the cache."""
    return jnp.asarray(q, dtype), jnp.asarray(k, dtype).swapaxes(1, 2), jnp.asarray(v, dtype).swapaxes(1, 2)


@pytest.mark.parametrize("backend", HERE)
@given(seed=st.integers(0, 99), groups=st.sampled_from([1, 3]))
def test_prefill_equals_the_definition(backend, seed, groups):
    q, k, v = arrays(seed, 2, 7, 7, 2, groups, 4)
    out = attend(*in_layout(q, k, v), None, backend)
    np.testing.assert_allclose(out, by_hand(q, k, v, np.tile(np.arange(7), (2, 1))), atol=2e-6)


@pytest.mark.parametrize("backend", HERE)
@given(seed=st.integers(0, 99), positions=st.lists(st.integers(0, 8), min_size=4, max_size=4))
def test_decoding_sees_the_cache_up_to_each_rows_own_position(backend, seed, positions):
    q, k, v = arrays(seed, 2, 2, 9, 1, 2, 4)
    places = np.array(positions).reshape(2, 2)
    out = attend(*in_layout(q, k, v), attention.cache_mask(jnp.asarray(places), 9), backend)
    np.testing.assert_allclose(out, by_hand(q, k, v, places), atol=2e-6)


@pytest.mark.parametrize(("window", "softcap"), [(1, None), (3, 0.7), (6, None), (600, 0.7)])
@pytest.mark.parametrize("backend", HERE)
def test_a_window_and_a_soft_cap_are_those_of_the_definition(backend, window, softcap, monkeypatch):
    monkeypatch.setattr(products, "_BLOCK", 3)
    q, k, v = arrays(4, 2, 7, 7, 2, 2, 4)
    out = attention.attend(*in_layout(q, k, v), None, backend, limits=Limits(window, softcap))
    np.testing.assert_allclose(out, by_hand(q, k, v, np.tile(np.arange(7), (2, 1)), window, softcap), atol=2e-6)


@pytest.mark.parametrize("backend", HERE)
def test_a_window_stays_within_a_document(backend, monkeypatch):
    monkeypatch.setattr(products, "_BLOCK", 3)
    q, k, v = arrays(5, 1, 9, 9, 1, 2, 4)
    segments = jnp.array([[1, 1, 1, 1, 2, 2, 2, 2, 2]])
    out = attention.attend(*in_layout(q, k, v), None, backend, segments, limits=Limits(3, 0.7))
    for start, end in ((0, 4), (4, 9)):
        own = by_hand(q[:, start:end], k[:, start:end], v[:, start:end], np.arange(end - start)[None], 3, 0.7)
        np.testing.assert_allclose(out[:, start:end], own, atol=2e-6)


def test_blocked_skips_the_keys_before_the_window():
    queries, keys = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 2048, 4, 16), (1, 4, 2048, 16)))

    def flops(window):
        attend = lambda q, k, v: attention.attend(q, k, v, None, "blocked", limits=Limits(window))  # noqa: E731
        return jax.jit(attend).lower(queries, keys, keys).compile().cost_analysis()["flops"]

    # 8 blocks of 256 see 256, 511, 511, ... keys instead of 256, 512, ..., 2,048.
    assert flops(256) < 0.45 * flops(None)
    assert flops(4096) == flops(None)


@pytest.mark.parametrize("length", [255, 256, 257, 600])
def test_blocks_join_without_a_seam(length):
    q, k, v = arrays(0, 1, length, length, 1, 2, 4)
    out = attention.attend(*in_layout(q, k, v), None, "blocked")
    np.testing.assert_allclose(out, by_hand(q, k, v, np.arange(length)[None]), atol=2e-6)


@pytest.mark.parametrize("backend", HERE)
def test_outputs_within_the_spans_are_there(backend):
    spans = np.array([[0, 600], [260, 261], [520, 600], [255, 513], [600, 1], [300, 300]])
    q, k, v = arrays(3, 6, 600, 600, 1, 2, 4)
    out = np.asarray(attention.attend(*in_layout(q, k, v), None, backend, None, jnp.asarray(spans)))
    wanted = by_hand(q, k, v, np.broadcast_to(np.arange(600), (6, 600)))
    for row, (begin, end) in enumerate(spans):
        np.testing.assert_allclose(out[row, begin:end], wanted[row, begin:end], atol=2e-6)
    assert np.isfinite(out).all()
    if backend == "blocked":  # blocks of 256 that no span touches are not computed
        assert [[bool(np.any(row[start : start + 256])) for start in (0, 256, 512)] for row in out] == [
            [True, True, True],
            [False, True, False],
            [False, False, True],
            [True, True, True],
            [False, False, False],
            [False, False, False],
        ]


def test_softmax_is_float32_where_inputs_are_bfloat16():
    q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in arrays(1, 1, 256, 256, 1, 1, 8))
    wide = by_hand(*(np.asarray(x, np.float64) for x in (q, k, v)), np.arange(256)[None])
    for backend in HERE:
        out = attention.attend(*in_layout(q, k, v, jnp.bfloat16), None, backend)
        assert out.dtype == jnp.bfloat16
        np.testing.assert_allclose(np.asarray(out, np.float64), wide, atol=0.02)


def test_blocked_prefill_computes_little_above_the_diagonal():
    queries, keys = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 2048, 4, 16), (1, 4, 2048, 16)))

    def flops(backend):
        attend = lambda q, k, v: attention.attend(q, k, v, None, backend)  # noqa: E731
        return jax.jit(attend).lower(queries, keys, keys).compile().cost_analysis()["flops"]

    # 8 blocks: 36 of 64 tiles lie on or under the diagonal.
    assert flops("blocked") < 0.62 * flops("xla")


def test_the_fused_kernel_is_chosen_where_it_exists(caplog):
    assert attention.backend_for("gpu", 128, "bfloat16") == "cudnn"
    assert attention.backend_for("tpu", 128, "bfloat16") == "splash"
    assert attention.backend_for("tpu", 80, "bfloat16") == "splash"
    assert attention.backend_for("cpu", 64, "float32") == "blocked"
    assert not caplog.records


def test_where_the_fused_kernel_does_not_exist_that_is_said_once(caplog):
    choice.log_once.cache_clear()
    for _ in range(2):
        assert attention.backend_for("gpu", 128, "float32") == "xla"
        assert attention.backend_for("gpu", 256, "bfloat16") == "xla"
        assert attention.backend_for("tpu", 128, "float32") == "xla"
    assert len(caplog.records) == 3
    assert all("taking xla" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("backend", "width", "dtype", "platform", "problem"),
    [
        ("cudnn", 8, "float32", "gpu", "cudnn needs bfloat16 or float16"),
        ("cudnn", 136, "bfloat16", "gpu", "heads of 8 to 128"),
        ("cudnn", 64, "bfloat16", "tpu", "cudnn runs on the platform gpu; the devices are tpu"),
        ("pallas", 64, "float32", "gpu", "pallas needs bfloat16 or float16"),
        ("pallas", 8, "bfloat16", "gpu", "heads of 16 to 128"),
        ("pallas", 100, "bfloat16", "gpu", "a multiple of 8"),
        ("pallas", 64, "bfloat16", "cpu", "pallas runs on the platform gpu"),
        ("splash", 128, "float32", "tpu", "splash needs bfloat16"),
        ("splash", 100, "bfloat16", "tpu", "a multiple of 8"),
        ("splash", 64, "bfloat16", "gpu", "splash runs on the platform tpu"),
    ],
)
def test_backends_refuse_what_they_cannot_do(backend, width, dtype, platform, problem):
    with pytest.raises(ValueError, match=problem):
        attention.refuse(backend, width, dtype, platform)


@pytest.mark.parametrize(
    ("backend", "limits", "problem"),
    [
        ("pallas", Limits(window=128), "pallas has no window, and this model has one of 128 tokens"),
        ("pallas", Limits(softcap=50.0), "pallas has no soft cap, and this model has one of 50"),
        ("cudnn", Limits(softcap=50.0), "cudnn has no soft cap"),
    ],
)
def test_limits_that_a_library_does_not_have_are_refused_by_name(backend, limits, problem):
    with pytest.raises(ValueError, match=problem):
        attention.refuse(backend, 64, "bfloat16", "gpu", limits)
    q = k = jnp.zeros((1, 256, 2, 16), jnp.bfloat16)
    with pytest.raises(ValueError, match=problem.partition(",")[0]):
        attention.attend(q, k.swapaxes(1, 2), k.swapaxes(1, 2), None, backend, limits=limits)


def test_limits_that_a_library_has_are_taken(caplog):
    choice.log_once.cache_clear()
    assert attention.backend_for("gpu", 128, "bfloat16", Limits(window=128)) == "cudnn"
    assert attention.backend_for("tpu", 128, "bfloat16", Limits(128, 50.0)) == "splash"
    assert not caplog.records
    assert attention.backend_for("gpu", 128, "bfloat16", Limits(None, 50.0)) == "xla"
    assert "cudnn has no soft cap" in caplog.records[0].getMessage()


def test_a_refusal_reaches_whoever_attends():
    x = jnp.zeros((1, 1, 1, 16))
    for backend in ("cudnn", "pallas", "splash"):
        with pytest.raises(ValueError, match=f"{backend} needs bfloat16"):
            attention.attend(x, x, x, None, backend)
    x = x.astype(jnp.bfloat16)
    with pytest.raises(ValueError, match="cudnn has no segments for the documents of a row"):
        attention.attend(x, x, x, None, "cudnn", jnp.zeros((1, 1), jnp.int32))


def test_arguments_that_cannot_be_honoured_raise():
    q, k, v = jnp.zeros((1, 2, 1, 4)), *jnp.zeros((2, 1, 1, 3, 4))
    with pytest.raises(ValueError, match="2 queries need as many keys"):
        attention.attend(q, k, v, None, "reference")
    with pytest.raises(ValueError, match="unknown attention backend"):
        attention.attend(q, k[:, :, :2], v[:, :, :2], None, "flash")


def test_a_window_belongs_in_a_mask():
    q, k, v = in_layout(*arrays(0, 1, 3, 3, 1, 1, 4))
    with pytest.raises(ValueError, match="a window belongs in it"):
        attention.attend(q, k, v, jnp.ones((1, 3, 3), bool), "blocked", limits=Limits(2))


@pytest.mark.parametrize("given", ["segments", "spans"])
def test_a_mask_says_all_and_stands_alone(given):
    q, k, v = in_layout(*arrays(0, 1, 3, 3, 1, 1, 4))
    with pytest.raises(ValueError, match="give no mask"):
        attention.attend(q, k, v, jnp.ones((1, 3, 3), bool), "blocked", **{given: jnp.zeros((1, 3), jnp.int32)})
