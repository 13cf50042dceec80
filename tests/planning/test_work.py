"""FLOPs, bytes and collectives that are read from compiled programs, against hand arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from judgelm_jax.devices.hardware import HARDWARE
from judgelm_jax.planning.hlo import parse
from judgelm_jax.planning.loops import trips
from judgelm_jax.planning.roofline import roofline
from judgelm_jax.planning.work import Work, work

H100 = next(one for one in HARDWARE if one.name == "h100")


def work_of(function, *shapes, **options):
    return work(parse(jax.jit(function, **options).lower(*shapes).compile().as_text()), unknown_trips=3)


def flops(done):
    return sum(one.times * one.flops for one in done)


def shape(*dims):
    return jax.ShapeDtypeStruct(dims, jnp.float32)


@settings(max_examples=5)
@given(rows=st.integers(2, 64), inner=st.integers(2, 64), columns=st.integers(2, 64), layers=st.integers(2, 9))
def test_products_in_a_scan_count_once_a_layer(rows, inner, columns, layers):
    def run(x, up, down):
        return jax.lax.scan(lambda x, own: (jnp.tanh(x @ own[0]) @ own[1], None), x, (up, down))[0]

    done = work_of(run, shape(rows, inner), shape(layers, inner, columns), shape(layers, columns, inner))
    assert flops(done) == 2 * 2 * rows * inner * columns * layers


def test_a_loop_whose_end_depends_on_data_counts_as_often_as_is_said():
    def run(x, w):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 1e3, lambda x: x @ w, x)

    assert flops(work_of(run, shape(8, 32), shape(32, 32))) == 3 * 2 * 8 * 32 * 32


def test_the_dearer_branch_counts():
    def run(which, x, w):
        return jax.lax.cond(which, lambda: x @ w, lambda: x)

    done = work_of(run, jax.ShapeDtypeStruct((), bool), shape(16, 64), shape(64, 64))
    assert flops(done) == 2 * 16 * 64 * 64


def test_what_is_added_elementwise_is_read_and_written_once():
    done = work_of(lambda x, y: x + y * 2, shape(1 << 16), shape(1 << 16))
    assert sum(one.times * one.bytes for one in done) == 3 * 4 * (1 << 16)


def test_a_layer_that_is_taken_out_of_a_stack_is_read_alone():
    done = work_of(lambda x, layer: x[layer] * 2, shape(50, 1 << 14), jax.ShapeDtypeStruct((), jnp.int32))
    assert sum(one.times * one.bytes for one in done) == pytest.approx(2 * 4 * (1 << 14), rel=0.01)


@pytest.mark.parametrize("devices", [2, 8])
def test_collectives_move_what_the_sharding_says(devices):
    mesh = jax.make_mesh((devices,), ("fsdp",), devices=jax.devices()[:devices])
    split, whole = NamedSharding(mesh, PartitionSpec("fsdp")), NamedSharding(mesh, PartitionSpec())
    size = 1 << 12
    gathered = work_of(
        lambda x: jax.lax.with_sharding_constraint(x * 2, whole),
        jax.ShapeDtypeStruct((size,), jnp.float32, sharding=split),
        out_shardings=whole,
    )
    (one,) = [one for one in gathered if one.collective]
    assert (one.collective, one.moved, one.group) == ("all-gather", 4 * size, tuple(range(devices)))
    summed = work_of(jnp.sum, jax.ShapeDtypeStruct((size, 4), jnp.float32, sharding=split), out_shardings=whole)
    assert [(one.collective, one.moved) for one in summed if one.collective] == [("all-reduce", 4)]


# As the compiler for TPUs prints loops: no count, a bound in the condition or carried in, a body that may be unrolled.
_TPU_LOOP = """HloModule loop

%body (p: (s32[], s32[])) -> (s32[], s32[]) {{
  %p = (s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %n = s32[] get-tuple-element(%p), index=1
  %step = s32[] constant({step})
  %next = s32[] add(%i, %step)
  ROOT %t = (s32[], s32[]) tuple(%next, %n)
}}

%condition (q: (s32[], s32[])) -> pred[] {{
  %q = (s32[], s32[]) parameter(0)
  %j = s32[] get-tuple-element(%q), index=0
  {bound}
  ROOT %less = pred[] compare(%j, %m), direction=LT
}}

ENTRY %main () -> (s32[], s32[]) {{
  %zero = s32[] constant(0)
  %most = s32[] constant(60)
  %begin = (s32[], s32[]) tuple(%zero, %most)
  ROOT %w = (s32[], s32[]) while(%begin), condition=%condition, body=%body
}}
"""


@pytest.mark.parametrize("bound", ["%m = s32[] constant(60)", "%m = s32[] get-tuple-element(%q), index=1"])
@pytest.mark.parametrize(("step", "expected"), [(1, 60), (4, 15), (7, 9)])
def test_loops_without_a_count_are_counted_by_their_condition(bound, step, expected):
    module = parse(_TPU_LOOP.format(step=step, bound=bound))
    main = module.computations["main"]
    assert trips(module, main["w"], main, unknown=5) == expected


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ("{{0,2},{1,3}}", (0, 2)),
        ("[2,4]<=[8]", (0, 1, 2, 3)),
        ("[4,2]<=[2,4]T(1,0)", (0, 4)),
    ],
)
def test_groups_of_a_collective(groups, expected):
    text = f"""HloModule m

ENTRY %main (x: f32[8]) -> f32[8] {{
  %x = f32[8]{{0}} parameter(0)
  ROOT %sum = f32[8]{{0}} all-reduce(%x), channel_id=1, replica_groups={groups}, to_apply=%add
}}
"""
    (one,) = work(parse(text), 1)
    assert (one.collective, one.moved, one.group) == ("all-reduce", 32, expected)


def test_what_bounds_a_program():
    instruction = parse("ENTRY %m () -> f32[] {\n  ROOT %x = f32[] constant(0)\n}").computations["m"]["x"]
    product = Work(instruction, 2, H100.flops, 0.0)
    copy = Work(instruction, 1, 0.0, H100.bandwidth)
    inside = Work(instruction, 1, 0.0, 0.0, collective="all-gather", moved=H100.link * 8 / 7, group=tuple(range(8)))
    hosts = Work(instruction, 1, 0.0, 0.0, collective="all-reduce", moved=H100.network * 2, group=(0, 8))
    assert roofline([product, copy], H100).bound == "compute"
    assert roofline([product], H100).seconds == pytest.approx(2 / 0.7)
    assert (roofline([copy], H100).bound, roofline([copy], H100).seconds) == ("memory", pytest.approx(1 / 0.85))
    assert roofline([inside], H100).seconds == pytest.approx(1)
    # Two devices of two hosts: half of the bytes leave each, twice for a sum.
    assert (roofline([hosts], H100).bound, roofline([hosts], H100).seconds) == ("network", pytest.approx(2))


def test_no_program_is_refused():
    with pytest.raises(ValueError, match="no compiled program"):
        parse("")
    assert np.isclose(H100.capacity, 0.92 * 80 * 2**30)


# As XLA writes them for an H100 and a v5e, cut to what is read.
CUDNN = """HloModule m
ENTRY %main (q: bf16[3,64,2,16], k: bf16[3,64,2,16], v: bf16[3,64,2,16]) -> bf16[3,2,64,16] {
  %q = bf16[3,64,2,16]{3,2,1,0} parameter(0)
  %k = bf16[3,64,2,16]{3,2,1,0} parameter(1)
  %v = bf16[3,64,2,16]{3,2,1,0} parameter(2)
  ROOT %f = bf16[3,2,64,16]{3,1,2,0} custom-call(%q, %k, %v), custom_call_target="__cudnn$fmhaSoftmax", METADATA
}
"""
PAGED = """HloModule m
ENTRY %main (n: s32[5], q: f32[5,2,4,16], k: bf16[2,30,8,16], v: bf16[2,30,8,16]) -> f32[5,2,4,16] {
  %n = s32[5]{0} parameter(0)
  %q = f32[5,2,4,16]{3,2,1,0} parameter(1)
  %k = bf16[2,30,8,16]{3,2,1,0} parameter(2)
  %v = bf16[2,30,8,16]{3,2,1,0} parameter(3)
  ROOT %p = f32[5,2,4,16]{3,2,1,0} custom-call(%n, %q, %k, %v), custom_call_target="tpu_custom_call", METADATA
}
"""


@pytest.mark.parametrize(
    ("text", "says", "expected"),
    [
        # Two products of each of 3 × 2 heads, 64 queries with 64 keys, half of them seen.
        (
            CUDNN,
            'backend_config={"cudnn_fmha_backend_config": {"is_paged_attention": false}}',
            2 * 2 * 3 * 2 * 64 * 64 * 16 / 2,
        ),
        (CUDNN, 'metadata={op_name="jit(step)/transpose/bwd"}', 5 * 2 * 3 * 2 * 64 * 64 * 16 / 2),
        # Two products of 2 × 4 heads with all of the 30 pages of 8 keys and values.
        (PAGED, 'metadata={op_name="jit(decode)/while/body/jit(paged_attention)/pallas_call"}', 2 * 2 * 2 * 4 * 30 * 8 * 16),
    ],
)
def test_attention_kernels_count_by_their_shapes(text, says, expected):
    assert flops(work(parse(text.replace("METADATA", says)), unknown_trips=1)) == expected
