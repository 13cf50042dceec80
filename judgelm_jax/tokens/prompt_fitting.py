"""Prompts that fit the context: the longest answers are shortened to one length, marked and counted. Imports no JAX."""

import dataclasses
from collections.abc import Callable, Sequence

from judgelm_jax.tokens.tokenization import Tokenizer

SHORTENED = "\n[shortened]"


@dataclasses.dataclass(frozen=True)
class FittedPrompt:
    """A rendered prompt: its `ids`, BOS first where there is one, and how many tokens were cut from each answer."""

    ids: list[int]
    removed: tuple[int, ...]


def fit_prompt(
    tokenizer: Tokenizer,
    ids_of: Callable[[Sequence[str]], list[int]],
    answers: Sequence[str],
    budget: int,
    marker: str = SHORTENED,
) -> FittedPrompt | None:
    """Renders a prompt of at most `budget` ids; where it would have more, shortens answers from their end.

    `ids_of`: of the whole prompt with these answers. Answers are cut to one common length in tokens, the largest that
    fits, and `marker` follows each one that is cut; shorter answers stay whole. All else is never cut. None: not even empty
    answers (with their markers) fit.
    """
    whole = ids_of(answers)
    if len(whole) <= budget:
        return FittedPrompt(whole, (0,) * len(answers))
    encoded = [tokenizer.encode(answer) for answer in answers]

    def shortened(length: int) -> FittedPrompt:
        texts, removed = [], []
        for answer, ids in zip(answers, encoded, strict=True):
            text, kept = tokenizer.cut(answer, ids, length)
            removed.append(len(ids) - kept)
            texts.append(text if len(ids) <= length else text + marker)
        return FittedPrompt(ids_of(texts), tuple(removed))

    # The prompt grows with the common length, but for one thing: an answer that becomes whole loses its marker.
    # So the stretches between the answers' own lengths are searched one by one, the longest first.
    lengths = sorted({0, *map(len, encoded)})
    for shortest, next_longer in zip(lengths[-2::-1], lengths[:0:-1], strict=True):
        if shortest > budget:
            continue
        best = shortened(shortest)
        if len(best.ids) > budget:
            continue
        cut = sum(len(ids) > shortest for ids in encoded)
        fits, too_long = shortest, min(next_longer, budget + 1)
        while too_long - fits > 1:
            # Each token more of the common length costs about one token in each answer that is cut.
            length = min(fits + max(1, (budget - len(best.ids)) // cut), too_long - 1)
            trial = shortened(length)
            if len(trial.ids) <= budget:
                fits, best = length, trial
            else:
                too_long = length
        return best
    return None
