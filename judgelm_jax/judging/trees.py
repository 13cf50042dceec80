"""The lines that may follow prompts, as trees of a tokenizer's tokens: one for each form, built when it is first asked for, and
kept: listing the 12,544 lines of a pair takes half a second."""

import functools
from collections.abc import Sequence

from judgelm_jax.errors import InputError
from judgelm_jax.judging import constrained_decoding, line_tree, score_chain
from judgelm_jax.judging.constrained_decoding import ScoreTree
from judgelm_jax.judging.line_parts import line_parts
from judgelm_jax.judging.line_tree import LineTree
from judgelm_jax.judging.score_chain import ScoreChain
from judgelm_jax.presets import JUDGELM
from judgelm_jax.tokens.tokenization import Tokenizer
from judgelm_jax.verdicts.score_lines import LineForm

Tree = ScoreTree | LineTree | ScoreChain

# Lines that are computed together: of more, the probabilities are those of a chain of scores.
MOST_LINES = 2000
# Lines that are listed to fold their tree; a tree of more is composed.
_MOST_LISTED = 20_000


class Trees:
    """The trees of one tokenizer and mode, by form."""

    def __init__(self, tokenizer: Tokenizer, mode: str, preset: str = JUDGELM):
        """`mode`, `preset`: of `JudgeConfig`. In `distribution` there are `LineTree`s and `ScoreChain`s, else `ScoreTree`s."""
        self._tokenizer, self._probabilities = tokenizer, mode == "distribution"
        self._place = "" if preset == JUDGELM else f"--preset={preset}: "

    def of(self, form: LineForm) -> Tree:
        """The tree of these lines.

        Raises:
          InputError: the tokenizer merges the end of the prompt with a line, or cannot write one.
        """
        try:
            return _build(self._tokenizer, self._probabilities, form)
        except InputError as error:
            raise InputError(f"{self._place}{error}") from error

    def check_end(self, form: LineForm, ids: Sequence[int], record: str) -> None:
        """Raises an `InputError` where the prompt of a record does not end in the ids behind which lines were tokenized."""
        end = self.of(form).prompt_end
        if tuple(ids[len(ids) - len(end) :]) != end:
            raise InputError(
                f"{self._place}the tokenizer merges the end of the prompt, {form.end[-20:]!r}, with what the record {record!r} "
                "has before it; let more text follow the last placeholder of the template"
            )


@functools.lru_cache(maxsize=64)
def _build(tokenizer: Tokenizer, probabilities: bool, form: LineForm) -> Tree:
    lines = len(form.words) ** form.count
    if probabilities:
        if lines <= MOST_LINES:
            return line_tree.build(tokenizer, tuple(form.lines()), form.end)
        return score_chain.build(line_parts(tokenizer, form), form.count)
    if lines <= _MOST_LISTED:
        return constrained_decoding.build(tokenizer, form.lines(), form.end)
    return constrained_decoding.compose(line_parts(tokenizer, form), form.count)
