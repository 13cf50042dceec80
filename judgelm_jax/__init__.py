"""Train, run and evaluate LLM judges in JAX.

The public API is resolved when it is first used (PEP 562), so that importing `judgelm_jax.records` imports no JAX.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from judgelm_jax.judging.judge import Judge, Judgment

__version__ = "0.1.0"
__all__ = ["Judge", "Judgment"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from judgelm_jax.judging import judge

        return getattr(judge, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
