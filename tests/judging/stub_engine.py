"""A judge whose model is a rule: each answer says how good it is, and the rule may prefer a position."""

import functools
import re
from collections.abc import Iterator, Sequence

from judgelm_jax.judging.batching import Prompt
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.judge import Judge
from judgelm_jax.judging.responses import Counts, Response
from judgelm_jax.judging.trees import Trees
from judgelm_jax.tokens.tokenization import Tokenizer

_QUALITY = re.compile(r"Assistant \d+'s Answer\]\n(?:\[Turn \d+\]\n)?quality ([0-9.]+)")


@functools.cache
def _trees(tokenizer: Tokenizer) -> Trees:
    """Tokenizing all lines takes a while."""
    return Trees(tokenizer, "scores")


class StubEngine:
    """Answers with the qualities in the order that is shown, each with what its position is worth."""

    def __init__(self, tokenizer: Tokenizer, preference: Sequence[int] = (), budget: int = 10**6):
        self.trees, self.counts = _trees(tokenizer), Counts()
        self._tokenizer, self._preference, self._budget = tokenizer, preference, budget
        self.seen: list[str] = []

    def prompt_budget(self, form) -> int:
        return self._budget

    def run(self, prompts: Sequence[Prompt]) -> Iterator[Response]:
        for prompt in sorted(prompts, key=lambda one: one.index * 7 % 11):
            form = prompt.form
            assert form is not None
            self.seen.append(self._tokenizer.decode(prompt.ids))
            qualities = [float(text) for text in _QUALITY.findall(self.seen[-1])[-form.count :]]
            assert len(qualities) == form.count
            lifts = [*self._preference, *[0] * form.count]
            line = " ".join(f"{quality + lift:g}" for quality, lift in zip(qualities, lifts, strict=False))
            end = self._tokenizer.encode(form.end)
            ids = self._tokenizer.encode(f"{form.end}{form.begins}{line}\nBecause of the rule.")[len(end) :]
            yield Response(prompt.index, ids, "stop")


def stub_judge(tokenizer: Tokenizer, preference: Sequence[int] = (), budget: int = 10**6, **settings) -> Judge:
    engine = StubEngine(tokenizer, preference, budget)
    return Judge(engine, tokenizer, JudgeConfig(**settings), "stub")  # type: ignore[arg-type]


def record(*qualities: float, reference: str | None = None, **fields) -> dict:
    found = {"question_id": "r", "question_body": "How good?", **fields}
    found |= {f"answer{number}_body": f"quality {quality:g}" for number, quality in enumerate(qualities, start=1)}
    return found if reference is None else {**found, "reference": {"text": reference}}
