"""What the tests of training share: a small model, and batches of random documents."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.model import parameters
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement
from judgelm_jax.training.loss import Batch
from judgelm_jax.training.optimizer import make_optimizer, schedule
from judgelm_jax.training.step import Program
from judgelm_jax.training_config import RecipeConfig

MODEL = ModelConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=8, context=64,
    norm_epsilon=1e-5, rope_base=10000.0, rope_scaling=None, tied_embeddings=False, bos_id=1, eos_ids=(2,),
)  # fmt: skip
LENGTH = 32


def make_batch(rows, seed, documents=1, length=LENGTH, vocabulary=MODEL.vocab_size):
    """Random rows of `documents` documents each; in each document, what follows its first third is the target.

    Rows have room for as many targets as tokens, so batches of one size have one shape.
    """
    rng = np.random.default_rng(seed)
    tokens, positions, segments = (np.zeros((rows, length), np.int32) for _ in range(3))
    targets = []
    for row in range(rows):
        start, own = 0, []
        for number in range(documents):
            size = int(rng.integers(4, length // documents + 1))
            tokens[row, start : start + size] = rng.integers(3, vocabulary, size)
            positions[row, start : start + size] = np.arange(size)
            segments[row, start : start + size] = number + 1
            own += list(range(start + max(1, size // 3), start + size))
            start += size
        targets.append(own)
    indices, ids, mask = (np.zeros((rows, length), kind) for kind in (np.int32, np.int32, np.float32))
    for row, own in enumerate(targets):
        indices[row, : len(own)] = np.array(own) - 1
        ids[row, : len(own)] = tokens[row, own]
        mask[row, : len(own)] = 1
    return Batch(tokens, positions, segments, indices, ids, mask)


def make_program(mesh_text="data:1", recipe=None, steps=10, remat="none", **changes):
    """A step's program on the first devices of a mesh; float32, not packed, everything at once, unless changed."""
    # With a large epsilon an update is a smooth function of the gradient: equal gradients give equal updates.
    recipe = recipe or RecipeConfig(learning_rate=1e-2, warmup=0.0, epsilon=1e-2)
    config = MeshConfig.parse(mesh_text)
    mesh = make_mesh(config, jax.devices()[: config.data * config.fsdp * config.tensor])
    program = Program(
        model=MODEL,
        placement=Placement(mesh, "blocked", remat),
        optimizer=make_optimizer(recipe, steps),
        schedule=schedule(recipe, steps),
        dtype="float32",
        packed=False,
        accumulation=1,
        loss_chunk=256,
        lora=None,
    )
    return dataclasses.replace(program, **changes)


@pytest.fixture(scope="session")
def params():
    return parameters.init_params(MODEL, jax.random.key(0), jnp.float32, deviation=0.2)
