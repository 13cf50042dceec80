"""The micro-batch and what is kept follow from the memory of a device."""

import dataclasses

import jax
import pytest

from judgelm_jax.devices import memory
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.errors import InputError
from judgelm_jax.training.fitting import compiled_step, variants
from judgelm_jax.training.programs import lower_step, make_program, state_shapes
from judgelm_jax.training_config import ComputationConfig, DataConfig, RecipeConfig, TrainConfig

from .conftest import MODEL

TARGETS = 8


def config_of(batch=8, micro=0, remat="auto", length=64):
    return TrainConfig(
        data=DataConfig(length=length),
        training=RecipeConfig(batch=batch, micro_batch=micro),
        computation=ComputationConfig(dtype="float32", remat=remat),
    )


def program_of(config, mesh):
    return make_program(config, MODEL, mesh, steps=10)


@pytest.fixture(scope="module")
def two_devices():
    return make_mesh(MeshConfig.parse("fsdp:2"), jax.devices()[:2])


def tried(config, mesh, room):
    return [(one.placement.remat, one.accumulation) for one in variants(program_of(config, mesh), config, room)]


def test_all_rows_at_once_where_nobody_knows_the_memory(two_devices):
    assert tried(config_of(), two_devices, None) == [("full", 1)]
    assert tried(config_of(micro=2), two_devices, None) == [("full", 2)]


def test_what_is_tried_where_memory_is_known(two_devices):
    # Micro-batches divide the four rows of a device; below 2,048 tokens products are not kept unless all rows go at once.
    assert tried(config_of(), two_devices, 1e12) == [("dots", 1), ("full", 1), ("full", 2), ("full", 4)]
    assert tried(config_of(length=64, remat="dots"), two_devices, 1e12) == [("dots", 1), ("dots", 2), ("dots", 4)]
    assert tried(config_of(micro=1, remat="full"), two_devices, 1e12) == [("full", 4)]
    # What cannot fit is not compiled, but for the last.
    assert tried(config_of(), two_devices, 0.0) == [("full", 4)]


@pytest.mark.slow
@pytest.mark.optimized
def test_the_first_that_fits_is_compiled(one_device):
    config = config_of(remat="none")
    program = program_of(config, one_device)
    shapes = state_shapes(program)

    def needed(micro):
        own = dataclasses.replace(program, accumulation=8 // micro)
        lowered = lower_step(own, shapes, None, 8, config.data.length, TARGETS)
        return memory.beside_arguments(lowered.compile())

    held, two = memory.bytes_on_device(shapes), needed(2)
    assert needed(1) < two < needed(4)
    step = compiled_step(program, config, shapes, None, TARGETS, (held + two) / memory.GIB)
    assert memory.beside_arguments(step) == two


def test_what_fits_nowhere_is_one_line_that_says_what_would(one_device):
    config = config_of()
    program = program_of(config, one_device)
    with pytest.raises(InputError, match=r"do not suffice: parameters and moments take .* it fits in ") as caught:
        compiled_step(program, config, state_shapes(program), None, TARGETS, 1e-5)
    assert "\n" not in str(caught.value)
