import pytest

from judgelm_jax.devices.hardware import of_kind
from judgelm_jax.errors import InputError
from judgelm_jax.planning.topology import parse, with_memory


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("a100-80gb:8", "a100-80gb:8", 8), ("h100", "h100:1", 1), ("h200:64", "h200:64", 64), ("a100-40gb:3", "a100-40gb:3", 3),
        ("v5e:1", "v5e:1x1", 1), ("v5e:2x2", "v5e:2x2", 4), ("v5e:16", "v5e:4x4", 16), ("v5p:8", "v5p:2x2x2", 8),
        ("v6e:16x16", "v6e:16x16", 256), ("cpu:4", "cpu:4", 4),
    ],
)  # fmt: skip
def test_topologies(text, name, count):
    topology = parse(text)
    assert (topology.name, topology.count) == (name, count)


@pytest.mark.parametrize(
    "text",
    ["", "a100", "a100-80gb:0", "a100-80gb:65", "h100:12", "h100:2x4", "v5e:3", "v5p:2x2", "v5e:2x2x2", "v5e:17x17", "h100:8x",
     "h100:-1", "v5e:٤"],
)  # fmt: skip
def test_other_words_are_refused_in_one_line(text):
    with pytest.raises(InputError, match=r"^--topology=[^\n]*$"):
        parse(text)


def test_memory_that_programs_may_use():
    assert parse("a100-80gb:8").hardware.capacity == pytest.approx(0.92 * 80 * 2**30)
    assert parse("v5e:1").hardware.capacity == 15.75 * 2**30
    assert with_memory(parse("h100"), 3.5).hardware.capacity == 3.5 * 2**30
    assert with_memory(parse("h100"), None) == parse("h100")
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="device_memory"):
            with_memory(parse("h100"), wrong)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"), ("NVIDIA A100-SXM4-80GB", "a100-80gb"), ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"), ("TPU v5 lite", "v5e"), ("TPU v5p", "v5p"), ("TPU v5", "v5p"), ("TPU v6 lite", "v6e"),
        ("TPU v4", "v4"),
    ],
)  # fmt: skip
def test_devices_by_the_names_that_jax_gives_them(kind, name):
    assert of_kind(kind).name == name
    assert of_kind("cpu") is None
