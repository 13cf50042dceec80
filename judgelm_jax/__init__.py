"""Train, run and evaluate LLM judges in JAX.

After `pip install .`, with a judge (a folder, or a hub id):

>>> from judgelm_jax import Judge
>>> judge = Judge.load("runs/quickstart/judge")
>>> judgment = judge.compare("How high is the Eiffel tower?", "About 330 metres.", "It is in Paris.")
>>> judgment.status, len(judgment.scores), judgment.winner in (0, 1, 2)  # 0: a tie; print(judgment) shows a card
('ok', 2, True)

The public API is resolved when it is first used (PEP 562), so that importing `judgelm_jax.records` imports no JAX.
"""

import importlib

TYPE_CHECKING = False  # not from `typing`, whose import takes the commands longer than all before Ctrl-C is handled
if TYPE_CHECKING:
    from typing import Any

    from judgelm_jax.evaluation.api import evaluate
    from judgelm_jax.inspect_scorer import judge_scorer
    from judgelm_jax.judging.judge import Judge
    from judgelm_jax.judging.judgment import Judgment
    from judgelm_jax.rewards import win_rate_reward

__version__ = "0.1.0"
__all__ = ["Judge", "Judgment", "evaluate", "judge_scorer", "win_rate_reward"]

_MODULES = {
    "Judge": "judgelm_jax.judging.judge",
    "Judgment": "judgelm_jax.judging.judgment",
    "judge_scorer": "judgelm_jax.inspect_scorer",
    "evaluate": "judgelm_jax.evaluation.api",
    "win_rate_reward": "judgelm_jax.rewards",
}


def __getattr__(name: str) -> "Any":
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
