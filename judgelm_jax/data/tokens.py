"""An example as token ids: the prompt of judging, then the target and its end of sequence."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from judgelm_jax.data.augmentation import Example
from judgelm_jax.errors import InputError
from judgelm_jax.prompts import prompts
from judgelm_jax.tokens.prompt_fitting import fit_prompt
from judgelm_jax.tokens.tokenization import Tokenizer

_KIND = "pair"
_END = "### Response:"  # of every prompt; it is never cut
_END_TOKENS = 3  # the number of last tokens of a prompt that do not depend on what is before `_END`


@dataclasses.dataclass(frozen=True)
class Tokens:
    """`ids` is int32 [n]: `prompt` ids, BOS first where there is one, then the target and the end of sequence.

    `removed`: tokens cut from each answer, in the order that is shown.
    """

    ids: np.ndarray
    prompt: int
    removed: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Size:
    """Tokens of an example, the targets among them, and whether answers were shortened."""

    tokens: int
    targets: int
    shortened: bool


def tokenize(example: Example, tokenizer: Tokenizer, eos_id: int, length: int, on_overflow: str) -> Tokens | None:
    """The ids of an example, at most `length`; answers are shortened where there would be more, a target never is.

    None: it is too long and `on_overflow` is `skip`, or not even empty answers fit.

    Raises:
      InputError: it is too long and `on_overflow` is `error`. The message has no place.
    """
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    prompt = prompts.render(_KIND, example.question, example.answers, example.reference)
    prompt_ids = begin + tokenizer.encode(prompt)
    ids = begin + tokenizer.encode(prompt + example.target)
    if ids[: len(prompt_ids)] != prompt_ids:
        raise AssertionError("the ids of a prompt do not begin those of prompt and target: no judge would write the target")
    targets = [*ids[len(prompt_ids) :], eos_id]
    removed: tuple[int, ...] = (0,) * len(example.answers)
    if len(prompt_ids) + len(targets) > length:
        if on_overflow == "error":
            raise InputError(
                f"the record {example.identity!r} has {len(prompt_ids) + len(targets)} tokens and a row {length}; raise "
                "--config.data.length, or shorten the answers with --config.data.on_overflow=truncate"
            )
        budget = length - len(targets)
        fitted = None
        if on_overflow == "truncate" and budget > 0:
            fitted = fit_prompt(
                tokenizer,
                lambda texts: begin + tokenizer.encode(prompts.render(_KIND, example.question, texts, example.reference)),
                example.answers,
                budget,
            )
        if fitted is None:
            return None
        if fitted.ids[-_END_TOKENS:] != prompt_ids[-_END_TOKENS:]:
            raise AssertionError("a shortened prompt does not end in the tokens behind which the target was tokenized")
        prompt_ids, removed = fitted.ids, fitted.removed
    return Tokens(np.array(prompt_ids + targets, np.int32), len(prompt_ids), removed)


def measure(
    examples: Sequence[Example], tokenizer: Tokenizer, eos_id: int, length: int, on_overflow: str
) -> list[Size | InputError | None]:
    """The sizes that `tokenize` gives, faster for many: on the threads of the library, each prompt tokenized once.

    An error takes the place of its example, so that the caller can say where it lies.
    """
    begin = 0 if tokenizer.bos_id is None else 1
    end = tokenizer.encode(_END)
    texts = [prompts.render(_KIND, one.question, one.answers, one.reference) + one.target for one in examples]
    texts += [_END + example.target for example in examples]
    encoded = tokenizer.encode_batch(texts)
    sizes: list[Size | InputError | None] = []
    for example, whole, tail in zip(examples, encoded, encoded[len(examples) :], strict=False):
        targets = len(tail) - len(end)
        if tail[: len(end)] != end or whole[len(whole) - targets :] != tail[len(end) :]:
            raise AssertionError("a target has other ids behind its prompt than behind the end of the prompt alone")
        size = Size(begin + len(whole) + 1, targets + 1, False)
        sizes.append(size if size.tokens <= length else _overflow_size(example, tokenizer, eos_id, length, on_overflow))
    return sizes


def _overflow_size(
    example: Example, tokenizer: Tokenizer, eos_id: int, length: int, on_overflow: str
) -> Size | InputError | None:
    try:
        tokens = tokenize(example, tokenizer, eos_id, length, on_overflow)
    except InputError as error:
        return error
    return None if tokens is None else Size(len(tokens.ids), len(tokens.ids) - tokens.prompt, True)
