"""How score lines are tokenized score by score, so that the lines of many scores need not be listed. Imports no JAX."""

import dataclasses
import itertools
import random

from judgelm_jax.errors import InputError
from judgelm_jax.tokens.tokenization import Tokenizer
from judgelm_jax.verdicts.score_lines import LineForm

# Every prompt of a form ends with the same text, so lines are tokenized behind it; its last ids are compared with those of each
# prompt.
PROMPT_END_TOKENS = 4
# What may stand before that text: a tokenizer may write its beginning as it fits.
_BEFORE = ("a", "a ", "a.", "1", "\n", "é")
_SAMPLES = 500  # whole lines that are tokenized to see whether their parts are theirs


@dataclasses.dataclass(frozen=True)
class LineParts:
    """The ids of the parts of a line. Put one behind the other they are those of the whole line.

    `first`: of each word as the first score. `later`: of each word as a further one, with the space before it. `newline`: of
    the end. `prompt_end`: those with which every prompt must end.
    """

    first: tuple[tuple[int, ...], ...]
    later: tuple[tuple[int, ...], ...]
    newline: tuple[int, ...]
    prompt_end: tuple[int, ...]


def end_of_prompts(tokenizer: Tokenizer, end: str) -> tuple[int, ...]:
    """The last ids, at most `PROMPT_END_TOKENS`, that a text has behind whatever comes before it."""
    alone, *behind = tokenizer.encode_batch([end, *(before + end for before in _BEFORE)])
    from_the_end = zip(*map(reversed, (alone, *behind)), strict=False)
    common = sum(1 for _ in itertools.takewhile(lambda ids: len(set(ids)) == 1, from_the_end))
    kept = min(common or len(alone), PROMPT_END_TOKENS)  # where nothing is sure, all is asked for
    return tuple(alone[len(alone) - kept :])


def line_parts(tokenizer: Tokenizer, form: LineForm) -> LineParts:
    """The parts of the lines of a form. All lines of two scores are tokenized to see that it is so, and some of `count`.

    Raises:
      InputError: the tokenizer writes a score otherwise beside other scores, or merges it with the end of the prompt.
    """
    begin, word = form.end + form.begins, form.words[0]
    texts = [form.end, begin + word, f"{begin}{word}\n", *(begin + one for one in form.words)]
    texts += [f"{begin}{word} {one}" for one in form.words]
    end, one, with_newline, *rest = map(tuple, tokenizer.encode_batch(texts))
    firsts, laters = rest[: len(form.words)], rest[len(form.words) :]
    found = LineParts(
        tuple(ids[len(end) :] for ids in firsts),
        tuple(ids[len(one) :] for ids in laters),
        with_newline[len(one) :],
        end_of_prompts(tokenizer, form.end),
    )
    drawn = random.Random(0)
    numbers = [*itertools.product(range(len(form.words)), repeat=2)]
    numbers += [tuple(drawn.choices(range(len(form.words)), k=form.count)) for _ in range(_SAMPLES)]
    lines = tokenizer.encode_batch([begin + " ".join(form.words[n] for n in line) + "\n" for line in numbers])
    for line, ids in zip(numbers, lines, strict=True):
        first, *others = line
        composed = (*end, *found.first[first], *itertools.chain(*(found.later[n] for n in others)), *found.newline)
        if composed != tuple(ids):
            raise InputError(
                "the tokenizer merges scores with what stands beside them, so lines of more than two scores cannot be written; "
                "judge pairs with this model"
            )
    return found
