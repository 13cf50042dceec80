"""The vectors of tokens, with a gradient that is added up in float32."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def look_up(table: jax.Array, tokens: jax.Array) -> jax.Array:
    """Rows [..., E] of a table [V, E] at `tokens` int32 [...].

    The gradient of a row is a sum over all positions of its token. In bfloat16 a sum stops growing once an addend is
    below 1/256 of it: common tokens would lose half of their gradient. So it is float32, rounded once to the table's dtype.
    """
    return table[tokens]


def _forward(table: jax.Array, tokens: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return look_up(table, tokens), (table, tokens)


def _backward(kept: tuple[jax.Array, jax.Array], cotangent: jax.Array) -> tuple[jax.Array, None]:
    table, tokens = kept
    sums = jnp.zeros(table.shape, jnp.float32).at[tokens].add(cotangent.astype(jnp.float32))
    return sums.astype(table.dtype), None


look_up.defvjp(_forward, _backward)
