"""A judge as a scorer of inspect_ai.

task = Task(dataset=..., solver=generate(), scorer=judge_scorer(judge))
"""

import asyncio
from typing import Any, Protocol


class Grades(Protocol):
    """What is needed of a `Judge`."""

    def grade(self, question: str, answer: str, reference: str | None = None) -> Any: ...


def judge_scorer(judge: Grades) -> Any:
    """Grades each output by its target, which is taken for a good answer; without a target, in no published format.

    A score's value is from 0 to 1: a tenth of the expected score in mode `distribution`, else of the score. An answer without
    a verdict has no value that counts: it is `NaN`, which inspect_ai shows as unscored.

    Raises:
      ImportError: inspect_ai is not installed.
    """
    from inspect_ai.scorer import Score, Target, mean, scorer, stderr
    from inspect_ai.solver import TaskState

    @scorer(metrics=[mean(), stderr()], name="judge")
    def graded() -> Any:
        async def score(state: TaskState, target: Target) -> Score:
            answer = state.output.completion
            judgment = await asyncio.to_thread(judge.grade, state.input_text, answer, target.text or None)
            scores = judgment.row.get("expected_scores") or judgment.scores
            value = float("nan") if scores is None else scores[0] / 10
            return Score(value=value, answer=answer, explanation=judgment.explanation or judgment.row["pred_text"])

        return score

    return graded()
