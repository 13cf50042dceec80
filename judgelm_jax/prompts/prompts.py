"""How a judge is asked: prompts as data, and JudgeLM's own, byte for byte as the published judge weights were trained on them.

The wording is part of the weights, as a tensor layout is (JudgeLM, Apache-2.0; see NOTICE). Text from
records is put in once and never read as a template.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")


@dataclasses.dataclass(frozen=True)
class Wording:
    """The prompt of a kind of judging, as data. Placeholders are filled in one pass.

    `template` may name `{question}`, `{answers}` (each as `answer` shows it), `{answer1}`, `{answer2}`, ..., `{reference}` (as
    `reference` shows it; nothing without one), `{count}` (of the answers, in words), `{numbers}` ("1, 2 and 3"), and any text
    field of the record by its name. It ends in text, behind which the response stands.
    `answer`: one answer in `{answers}`, from `{number}` and `{answer}`. `reference`: from `{reference}`.
    `of_one`: the template where one answer is shown alone; None: the same.
    `needs_reference`: there is no such prompt without a reference.
    `known_score`: where the first answer shown is known to be good, the response is begun with this, its score. Empty: such an
    answer is not shown as one of the answers, but is the reference.
    """

    template: str
    answer: str = "{answer}"
    reference: str = "{reference}"
    of_one: str | None = None
    known_score: str = ""
    needs_reference: bool = False

    def fill(
        self,
        question: str,
        answers: Sequence[str],
        reference: str | None,
        texts: Mapping[str, str] | None = None,
        known: bool = False,
    ) -> str:
        """The whole prompt, without the tokenizer's BOS.

        Args:
          question: the question, as the record has it.
          answers: in the order in which the judge sees them.
          reference: the text of the reference answer, or None for a prompt without one.
          texts: the further fields that the template names.
          known: the first answer is known to be good.
        """
        numbered = [
            _fill(self.answer, {"number": str(number), "answer": answer}) for number, answer in enumerate(answers, start=1)
        ]
        values = {
            **(texts or {}),
            "question": question,
            "answers": "".join(numbered),
            "reference": "" if reference is None else _fill(self.reference, {"reference": reference}),
            "count": _number_word(len(answers)),
            "numbers": _enumerated(len(answers)),
            **{f"answer{number}": answer for number, answer in enumerate(answers, start=1)},
        }
        return _fill(self._template(len(answers)), values) + (self.known_score if known else "")

    def end(self, answers: int, known: bool = False) -> str:
        """The text with which every prompt of that many answers ends, whatever the record; the response follows it."""
        return _PLACEHOLDER.split(self._template(answers))[-1] + (self.known_score if known else "")

    def names_reference(self) -> bool:
        """Whether the prompt has a place for a reference."""
        return "{reference}" in self.template

    def fields(self) -> tuple[str, ...]:
        """The further text fields of a record that the prompt names."""
        return _fields(self.template + (self.of_one or ""))

    def _template(self, answers: int) -> str:
        return self.template if answers > 1 or self.of_one is None else self.of_one


_BEGIN = (
    "You are a helpful and precise assistant for checking the quality of the answer.\n"
    "[Question]\n{question}\n\n{reference}{answers}"
    "[System]\nWe would like to request your feedback on the performance of {count} "
)
_CRITERIA_TEXT = (
    "AI assistants in response to the user question displayed above.\n"
    "Please rate the helpfulness, relevance, accuracy, level of details of their responses. "
    "Each assistant receives an overall score on a scale of 1 to 10, where a higher score indicates better "
    "overall performance.\n"
)
_CRITERIA_MULTIMODAL = (
    "AI assistants' answers in comparing with the reference answer and determine if they match meaningfully. "
    "Please rate the helpfulness, relevance, accuracy, level of details of the Assistants' answers. "
    "To accomplish the task, you must : 1. Focus on the meaningful match between the reference answer and the "
    "Assistants' answers.\n"
    " 2. Consider synonyms or paraphrases as valid matches.\n"
    " 3. Evaluate the correctness of the Assistants' answers compared to the reference answer.\n"
    " 4. If there are multiple reference answers, the Assistants' answer is considered correct as long as it is "
    "close to any of the answers.\n"
)
_LINE = (
    "Please first output a single line containing only {count} values indicating the scores for "
    "Assistant {numbers}, respectively. The {count} scores are separated by a space. "
)
# Ours, in no published weights: the same with the nouns of one answer.
_CRITERIA_OF_ONE = (
    "AI assistant in response to the user question displayed above.\n"
    "Please rate the helpfulness, relevance, accuracy, level of details of its response. "
    "The assistant receives an overall score on a scale of 1 to 10, where a higher score indicates better "
    "overall performance.\n"
)
_LINE_OF_ONE = "Please first output a single line containing only {count} value indicating the score for Assistant {numbers}. "
_REASON = (
    "In the subsequent line, please provide a comprehensive explanation of your evaluation, avoiding any "
    "potential bias and ensuring that the order in which the responses were presented "
)

# Whatever the kind and the record, JudgeLM's prompts end with this text; the response follows it.
END = "does not affect your judgment.\n\n### Response:"

TEXT = Wording(
    template=_BEGIN + _CRITERIA_TEXT + _LINE + _REASON + END,
    answer="[The Start of Assistant {number}'s Answer]\n{answer}\n\n[The End of Assistant {number}'s Answer]\n\n",
    reference="[Reference Answer]\n{reference}\n\n",
    of_one=_BEGIN + _CRITERIA_OF_ONE + _LINE_OF_ONE + _REASON + END,
    known_score="10",
)
MULTIMODAL = dataclasses.replace(TEXT, template=_BEGIN + _CRITERIA_MULTIMODAL + _LINE + _REASON + END, of_one=None)

# JudgeLM's prompt of each kind, and whether the first answer that it shows is known to be good.
_JUDGELM = {"pair": (TEXT, False), "single": (TEXT, True), "multi": (TEXT, False), "multimodal": (MULTIMODAL, True)}
KINDS = tuple(_JUDGELM)

# fmt: off
_SMALL_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen",
    "seventeen", "eighteen", "nineteen",
)
# fmt: on
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def response_prefix(kind: str) -> str:
    """The text with which the response is begun; it already ends the result of `render`."""
    wording, known = _JUDGELM[kind]
    return wording.known_score if known else ""


def render(kind: str, question: str, answers: Sequence[str], reference: str | None) -> str:
    """JudgeLM's prompt with these answers, two or more where the kind is `multi`, else two.

    Raises:
      ValueError: an unknown kind, or a number of answers that the kind does not have.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; kinds are {', '.join(KINDS)}")
    if len(answers) < 2 or (len(answers) > 2 and kind != "multi"):
        raise ValueError(f"{len(answers)} answers for a prompt of kind {kind!r}")
    wording, known = _JUDGELM[kind]
    return wording.fill(question, answers, reference, known=known)


@functools.lru_cache(maxsize=64)
def _fields(template: str) -> tuple[str, ...]:
    """The placeholders of a template that are filled from fields of the record."""
    own = {"question", "answers", "reference", "count", "numbers"}
    named = _PLACEHOLDER.findall(template)
    return tuple(dict.fromkeys(name for name in named if name not in own and not re.fullmatch(r"answer[0-9]+", name)))


@functools.lru_cache(maxsize=64)
def _pieces(template: str) -> tuple[str, ...]:
    """Text, the name of a placeholder, text, and so on."""
    return tuple(_PLACEHOLDER.split(template))


def _fill(template: str, values: Mapping[str, str]) -> str:
    return "".join(values[piece] if place % 2 else piece for place, piece in enumerate(_pieces(template)))


def _enumerated(count: int) -> str:
    """`1`, `1 and 2`, `1, 2 and 3`."""
    *others, last = map(str, range(1, count + 1))
    return f"{', '.join(others)} and {last}" if others else last


def _number_word(number: int) -> str:
    """English words of a whole number below a million: 21 is `twenty-one`, 105 is `one hundred five`."""
    if number < 20:
        return _SMALL_NUMBERS[number]
    if number < 100:
        tens, rest = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_SMALL_NUMBERS[rest]}" if rest else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = divmod(number, size)
    return f"{_number_word(head)} {name}" + (f" {_number_word(rest)}" if rest else "")
