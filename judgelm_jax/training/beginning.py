"""What a run begins with: where its state lies, the first state, the compiled step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from judgelm_jax.model import lora, parameters
from judgelm_jax.training.feeding import Feeding
from judgelm_jax.training.setup import Run
from judgelm_jax.training.step import State, init_state, make_step, state_shardings


def trained_shardings(run: Run) -> Any:
    """Where the leaves of what is trained lie: adapters, or a whole model."""
    if run.program.lora is not None:
        return lora.shardings(run.model, run.program.lora, run.mesh)
    return parameters.param_shardings(run.model, run.mesh)


def state_shapes(run: Run) -> State:
    """The state as shapes, dtypes and shardings."""
    optimizer = run.program.optimizer
    trained = jax.eval_shape(lambda: initial(run))
    shapes = jax.eval_shape(lambda trained: init_state(trained, optimizer), trained)
    shardings = state_shardings(trained, trained_shardings(run), optimizer, run.mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def initial(run: Run) -> Any:
    """What is trained, before the first step, where it is random: adapters, or a whole model."""
    key = jax.random.key(run.config.training.seed)
    if run.program.lora is not None:
        return lora.init(run.model, run.program.lora, key)
    return parameters.init_params(run.model, key, jnp.float32)


def frozen_params(run: Run) -> Any:
    """With adapters the model that they are trained on, in the dtype of the computation; else None."""
    if run.program.lora is None:
        return None
    assert run.checkpoint is not None
    return run.checkpoint.load(parameters.param_shardings(run.model, run.mesh), run.program.dtype)


def first_state(run: Run, shapes: State) -> State:
    """The state before the first step, straight into its shards."""
    if run.checkpoint is not None and run.program.lora is None:
        trained = run.checkpoint.load(trained_shardings(run), jnp.float32)
    else:
        trained = jax.jit(lambda: initial(run), out_shardings=trained_shardings(run))()
    make = jax.jit(
        lambda trained: init_state(trained, run.program.optimizer), donate_argnums=0, out_shardings=_shardings(shapes)
    )
    return make(trained)


def compiled_step(run: Run, shapes: State, frozen: Any, feeding: Feeding) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    step = jax.jit(make_step(run.program), donate_argnums=0, out_shardings=(_shardings(shapes), None))
    return step.lower(shapes, frozen, feeding.shapes(run.config.data.length, run.plan.targets)).compile()


def _shardings(shapes: Any) -> Any:
    return jax.tree.map(lambda x: x.sharding, shapes)
