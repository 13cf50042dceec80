"""What a run begins with: weights that stay as they are, and the first state."""

from typing import Any

import jax
import jax.numpy as jnp

from judgelm_jax.model import parameters
from judgelm_jax.training.programs import initial, shardings_of, trained_shardings
from judgelm_jax.training.setup import Run
from judgelm_jax.training.step import State, init_state


def frozen_params(run: Run) -> Any:
    """With adapters the model that they are trained on, in the dtype of the computation; else None."""
    if run.program.lora is None:
        return None
    assert run.checkpoint is not None
    return run.checkpoint.load(parameters.param_shardings(run.model, run.mesh), run.program.dtype)


def first_state(run: Run, shapes: State) -> State:
    """The state before the first step, straight into its shards."""
    if run.checkpoint is not None and run.program.lora is None:
        trained = run.checkpoint.load(trained_shardings(run.program), jnp.float32)
    else:
        make_random = jax.jit(
            lambda: initial(run.program, run.config.training.seed), out_shardings=trained_shardings(run.program)
        )
        trained = make_random()
    make = jax.jit(
        lambda trained: init_state(trained, run.program.optimizer), donate_argnums=0, out_shardings=shardings_of(shapes)
    )
    return make(trained)
