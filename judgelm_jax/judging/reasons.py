"""Judges that reason before their verdict: the reason is generated, and the verdict is computed behind it and its marker."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from judgelm_jax.judging.batching import Prompt
from judgelm_jax.judging.engine import Engine
from judgelm_jax.judging.responses import NOT_FINITE, Response
from judgelm_jax.tokens.tokenization import Tokenizer, going_on

if TYPE_CHECKING:
    from judgelm_jax.judging.prepared import Prepared


def make_engine(engine: Engine, tokens: int) -> Engine:
    """An engine of the same model that generates up to this many tokens."""
    settings = dataclasses.replace(engine.settings, mode="explain", max_new_tokens=tokens)
    reasoner = Engine({}, engine.config, engine.mesh, settings, engine.trees)
    reasoner.params, reasoner.counts = engine.params, engine.counts
    reasoner.programs.counts = engine.counts
    return reasoner


def run(engine: Engine, reasoner: Engine, tokenizer: Tokenizer, prepared: "Prepared", marker: str) -> Iterator[Response]:
    """What `engine` says behind each prompt, the reason that `reasoner` writes, and the marker.

    A reason ends where its own marker begins, or at the most tokens that it may have.
    """
    reasons: dict[int, str] = {}
    asked: list[Prompt] = []
    by_index = {prompt.index: prompt for prompt in prepared.prompts}
    for response in reasoner.run(prepared.prompts):
        if response.finish == NOT_FINITE:
            yield response
            continue
        prompt = by_index[response.index]
        text = tokenizer.decode(response.ids).partition(marker.strip())[0]
        reasons[response.index] = text
        assert prompt.form is not None
        end = engine.trees.of(prompt.form).prompt_end
        behind = _with_marker(tokenizer, text, marker.rstrip(), end)
        asked.append(dataclasses.replace(prompt, ids=np.asarray([*prompt.ids.tolist(), *behind], np.int32)))
    for response in engine.run(asked):
        yield dataclasses.replace(response, reason=reasons[response.index])


def _with_marker(tokenizer: Tokenizer, reason: str, marker: str, end: Sequence[int]) -> list[int]:
    """The ids of reason and marker, which end as those of the marker alone do: behind them the lines were tokenized."""
    ids = going_on(tokenizer, reason + marker)
    if tuple(ids[len(ids) - len(end) :]) == tuple(end):
        return ids
    alone = tokenizer.encode(marker)
    return [*going_on(tokenizer, reason), *alone]
