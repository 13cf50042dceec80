"""AdamW with warm-up and cosine, as the published recipe has it."""

from typing import Any

import jax
import optax

from judgelm_jax.training_config import RecipeConfig


def schedule(recipe: RecipeConfig, steps: int) -> optax.Schedule:
    """Step (from 0) → learning rate: linear from 0 over the first ⌈warmup · steps⌉ steps, then half a cosine down to 0.

    The same as `transformers.get_cosine_schedule_with_warmup`, with which the published judges were trained; the first step
    therefore changes nothing.
    """
    warmup = -int(-recipe.warmup * steps // 1)
    rise = optax.linear_schedule(0.0, recipe.learning_rate, warmup)
    fall = optax.cosine_decay_schedule(recipe.learning_rate, max(1, steps - warmup))
    return optax.join_schedules([rise, fall], [warmup]) if warmup else fall


def make_optimizer(recipe: RecipeConfig, steps: int) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW (Loshchilov & Hutter, arXiv 1711.05101); norms do not decay."""
    return optax.chain(
        optax.clip_by_global_norm(recipe.clip_norm),
        optax.adamw(
            schedule(recipe, steps),
            b1=recipe.beta1,
            b2=recipe.beta2,
            eps=recipe.epsilon,
            weight_decay=recipe.weight_decay,
            mask=_is_matrix,
        ),
    )


def _is_matrix(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: "norm" not in jax.tree_util.keystr(path), params)
