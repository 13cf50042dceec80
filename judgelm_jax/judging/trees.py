"""The lines that may follow prompts, as trees of a tokenizer's tokens: one for each form, built when it is first asked for."""

from judgelm_jax.judging import line_tree, score_tree
from judgelm_jax.judging.line_tree import LineTree
from judgelm_jax.judging.score_tree import ScoreTree
from judgelm_jax.tokenization import Tokenizer
from judgelm_jax.verdicts import LineForm

Tree = ScoreTree | LineTree


class Trees:
    """The trees of one tokenizer and mode, by form."""

    def __init__(self, tokenizer: Tokenizer, mode: str):
        """`mode`: of `JudgeConfig`. In `distribution` the trees are `LineTree`s, else `ScoreTree`s."""
        self._tokenizer, self._mode = tokenizer, mode
        self._trees: dict[LineForm, Tree] = {}

    def of(self, form: LineForm) -> Tree:
        """The tree of these lines.

        Raises:
          InputError: the tokenizer merges the end of the prompt with a line.
        """
        if form not in self._trees:
            build = line_tree.build if self._mode == "distribution" else score_tree.build
            self._trees[form] = build(self._tokenizer, tuple(form.lines()), form.end)
        return self._trees[form]
