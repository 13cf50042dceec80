"""The real forward pass with the kernels of Pallas, compiled (not run) for hardware that is absent.

For TPUs that needs the package libtpu, for GPUs the CUDA plugin of JAX; tests are skipped where they are not installed. They
are slow ones, for those are compiled as users compile.
"""

import functools
import importlib.util
import os
import re

os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # before JAX looks for plugins
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh, sharding
from judgelm_jax.judging import slots
from judgelm_jax.model import decoder, parameters, views
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement

# Two layers of the width of one head of LLaMA-7B and grouped heads; the programs are those of any size.
CONFIG = ModelConfig(
    vocab_size=1000, hidden_size=1024, intermediate_size=2048, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=128,
    context=2048, norm_epsilon=1e-6, rope_base=10000.0, rope_scaling=None, tied_embeddings=False, bos_id=1, eos_ids=(2,),
)  # fmt: skip

A100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 167936
  threads_per_core_limit: 2048 core_count: 108 fpus_per_core: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 2039000000000 l2_cache_size: 41943040 clock_rate_ghz: 1.41 device_memory_size: 85899345920
  shared_memory_per_block_optin: 166912 cuda_compute_capability { major: 8 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 13 }
device_description_str: "NVIDIA A100-SXM4-80GB"
"""


def _installed(*modules):
    try:
        return all(importlib.util.find_spec(module) for module in modules)
    except ModuleNotFoundError:
        return False


NO_TPU = pytest.mark.skipif(not _installed("libtpu"), reason="needs libtpu")
NO_GPU = pytest.mark.skipif(not _installed("jax_plugins.xla_cuda13"), reason="needs jax[cuda13]")
GPU = pytest.param("gpu", "pallas", "xla.gpu.triton", marks=NO_GPU)
ON_BOTH = pytest.mark.parametrize(
    ("hardware", "backend", "call"), [pytest.param("tpu", "splash", "tpu_custom_call", marks=NO_TPU), GPU]
)
# What was compiled for a device that is absent cannot be read back from the cache.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.optimized,
    pytest.mark.filterwarnings("ignore:Error reading persistent compilation cache"),
]


@functools.cache
def mesh_of(hardware):
    if hardware == "tpu":
        topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    else:
        topology = topologies.get_topology_desc(platform="cuda", topology_name="a100", topology="1x1x4", target_config=A100)
    return make_mesh(MeshConfig.parse("data:2,tensor:2"), topology.devices)


def placed(shapes, shardings):
    return jax.tree.map(lambda x, lies: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=lies), shapes, shardings)


def params_on(mesh):
    return placed(parameters.abstract_params(CONFIG, jnp.bfloat16), parameters.param_shardings(CONFIG, mesh))


@ON_BOTH
def test_training_on_packed_rows_compiles_and_makes_no_scores(hardware, backend, call):
    mesh = mesh_of(hardware)
    rows = jax.ShapeDtypeStruct((4, 1152), jnp.int32, sharding=NamedSharding(mesh, P(("data", "fsdp"))))

    def loss(params, tokens, positions, segments):
        placement, view = Placement(mesh, backend, "full"), views.Rows(positions, segments)
        hidden, _ = decoder.forward(params, CONFIG, tokens, view, placement=placement)
        return jnp.square(hidden.astype(jnp.float32)).mean()

    text = jax.jit(jax.grad(loss)).lower(params_on(mesh), rows, rows, rows).compile().as_text()
    assert len(re.findall(f'custom_call_target="\\S*{call}"', text)) == 4  # forward, again in the backward pass, and its two
    assert "1152,1152" not in text


@ON_BOTH
def test_prefill_of_an_odd_length_compiles(hardware, backend, call):
    mesh = mesh_of(hardware)
    tokens = jax.ShapeDtypeStruct((4, 1000), jnp.int32, sharding=NamedSharding(mesh, P(("data", "fsdp"))))
    placement = Placement(mesh, backend)

    def run(params, tokens):
        return decoder.forward(params, CONFIG, tokens, views.whole_rows(tokens), placement=placement)

    assert call in jax.jit(run).lower(params_on(mesh), tokens).compile().as_text()


@ON_BOTH
def test_decoding_compiles_and_copies_no_cache(hardware, backend, call):
    mesh = mesh_of(hardware)
    state = jax.eval_shape(functools.partial(slots.empty, CONFIG, 8, 1040, 16, jnp.bfloat16))
    lies = jax.tree.map(lambda x, axes: sharding(mesh, axes, x.shape), state, slots.axes(state))
    run = functools.partial(slots.decode, temperature=None, config=CONFIG, placement=Placement(mesh, backend), steps=16)
    decode = jax.jit(lambda params, state: run(params, state), donate_argnums=1)
    params = parameters.unstacked(params_on(mesh), CONFIG)
    compiled = decode.lower(params, placed(state, lies)).compile()
    text = compiled.as_text()
    assert call in text
    # Not the cache of a layer, on one device: 4 rows, 2 key/value heads.
    assert not re.search(r"bf16\[(1,)?4,2,1040,128\]\S* (copy|transpose|dynamic-slice)\(", text)
    # Nor a weight: what is copied out of a stack is read three times. A matrix of a layer on one of two devices along `tensor`.
    matrix = f"{CONFIG.intermediate_size // mesh.shape['tensor']},{CONFIG.hidden_size}"
    assert not re.search(rf"bf16\[(1,)?{matrix}\]\S* (copy|dynamic-slice)\(", text)
