"""The program of a training step, made of a config, a model and a mesh alone: nothing of it needs the data or a device."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from judgelm_jax.errors import InputError
from judgelm_jax.model import attention, lora, parameters
from judgelm_jax.model.config import ModelConfig
from judgelm_jax.model.placement import Placement
from judgelm_jax.training.feeding import batch_shapes
from judgelm_jax.training.optimizer import make_optimizer, schedule
from judgelm_jax.training.step import Program, State, accumulation_of, init_state, make_step, state_shardings
from judgelm_jax.training_config import TrainConfig


def make_program(config: TrainConfig, model: ModelConfig, mesh: Mesh, steps: int) -> Program:
    """The program of one step of a run of `steps`; what the config leaves open, `fitting.variants` varies.

    Raises:
      InputError: the mesh does not divide the model or the batch, the attention backend cannot do what is asked, or the weights
        are int8.
    """
    if model.int8:
        raise InputError("the weights are int8, which are to judge with; train the checkpoint that they were made of")
    parameters.param_shardings(model, mesh)  # raises where the mesh does not divide the model
    remat = config.computation.remat
    return Program(
        model=model,
        placement=Placement(mesh, _attention(config, model, mesh), "full" if remat == "auto" else remat),
        optimizer=make_optimizer(config.training, steps),
        schedule=schedule(config.training, steps),
        dtype=config.computation.dtype,
        packed=config.data.packing,
        accumulation=accumulation_of(config, mesh),
        loss_chunk=config.computation.loss_chunk,
        lora=config.lora if config.lora.rank else None,
    )


def _attention(config: TrainConfig, model: ModelConfig, mesh: Mesh) -> str:
    """The attention backend: the one that is asked for, or the fastest of the platform."""
    backend, platform = config.computation.attention, mesh.devices.flat[0].platform
    if backend == "auto":
        backend = attention.backend_for(platform, model.head_dim, config.computation.dtype, model.limits())
        if config.data.packing and backend == "cudnn":
            backend = _packed(model, config.computation.dtype, platform)
    try:
        attention.refuse(backend, model.head_dim, config.computation.dtype, platform, model.limits())
    except ValueError as error:
        raise InputError(f"--config.computation.attention={backend}: {error}; choose another") from error
    if config.data.packing and backend == "cudnn":
        raise InputError(
            "--config.computation.attention=cudnn: has no segments for packed documents; take xla or pallas, or do not pack"
        )
    return backend


def _packed(model: ModelConfig, dtype: Any, platform: str) -> str:
    """The backend for packed documents on GPUs: the fused kernel that has segments, where it can do this width."""
    try:
        attention.refuse("pallas", model.head_dim, dtype, platform, model.limits())
    except ValueError as error:
        attention.log_once(f"the attention backend cudnn has no segments for packed documents, and {error}: taking xla")
        return "xla"
    attention.log_once("the attention backend cudnn has no segments for packed documents: taking pallas")
    return "pallas"


def trained_shardings(program: Program) -> Any:
    """Where the leaves of what is trained lie: adapters, or a whole model."""
    mesh = program.placement.mesh
    assert mesh is not None
    if program.lora is not None:
        return lora.shardings(program.model, program.lora, mesh)
    return parameters.param_shardings(program.model, mesh)


def initial(program: Program, seed: int) -> Any:
    """What is trained, before the first step, where it is random: adapters, or a whole model. For `jax.jit`."""
    key = jax.random.key(seed)
    if program.lora is not None:
        return lora.init(program.model, program.lora, key)
    return parameters.init_params(program.model, key, jnp.float32)


def state_shapes(program: Program) -> State:
    """The state as shapes, dtypes and shardings."""
    mesh, optimizer = program.placement.mesh, program.optimizer
    assert mesh is not None
    trained = jax.eval_shape(lambda: initial(program, 0))
    shapes = jax.eval_shape(lambda trained: init_state(trained, optimizer), trained)
    shardings = state_shardings(trained, trained_shardings(program), optimizer, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def lower_step(program: Program, shapes: State, frozen: Any, rows: int, length: int, targets: int) -> jax.stages.Lowered:
    """The step, to be compiled.

    Args:
      shapes: of the state. frozen: of the parameters that adapters are trained on (or these themselves); else None.
      rows, length, targets: of the batch of one step: its rows, and the tokens and the most targets of each.
    """
    mesh = program.placement.mesh
    assert mesh is not None
    step = jax.jit(make_step(program), donate_argnums=0, out_shardings=(shardings_of(shapes), None))
    return step.lower(shapes, frozen, batch_shapes(rows, mesh, length, targets))


def shardings_of(shapes: Any) -> Any:
    """The shardings of shapes that have some."""
    return jax.tree.map(lambda x: x.sharding, shapes)
