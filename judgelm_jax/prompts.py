"""The prompt of each kind of judging, byte for byte as the published judge weights were trained on.

The wording is part of the weights, as a tensor layout is (JudgeLM, Apache-2.0; see NOTICE). Text from
records is put in once and never read as a template.
"""

from collections.abc import Sequence

KINDS = ("pair", "single", "multi", "multimodal")

# Whatever the kind and the record, every prompt ends with this text; the response follows it.
END = "does not affect your judgment.\n\n### Response:"

# In these kinds the first answer is known to be good: the response is begun with its score, 10.
_RESPONSE_PREFIXES = {"pair": "", "single": "10", "multi": "", "multimodal": "10"}

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
    return _RESPONSE_PREFIXES[kind]


def render(kind: str, question: str, answers: Sequence[str], reference: str | None) -> str:
    """The whole prompt of one record, without the tokenizer's BOS.

    Args:
      kind: one of `KINDS`.
      question: the question, as the record has it.
      answers: in the order in which the judge sees them; two, for `multi` two or more.
      reference: the text of the reference answer, or None for a prompt without one.

    Raises:
      ValueError: an unknown kind, or a number of answers that the kind does not have.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}; kinds are {', '.join(KINDS)}")
    if len(answers) < 2 or (len(answers) > 2 and kind != "multi"):
        raise ValueError(f"{len(answers)} answers for a prompt of kind {kind!r}")
    parts = [
        "You are a helpful and precise assistant for checking the quality of the answer.\n",
        f"[Question]\n{question}\n\n",
    ]
    if reference is not None:
        parts.append(f"[Reference Answer]\n{reference}\n\n")
    for number, answer in enumerate(answers, start=1):
        parts.append(f"[The Start of Assistant {number}'s Answer]\n{answer}\n\n")
        parts.append(f"[The End of Assistant {number}'s Answer]\n\n")
    count = _number_word(len(answers))
    numbers = ", ".join(str(number) for number in range(1, len(answers))) + f" and {len(answers)}"
    parts += [
        f"[System]\nWe would like to request your feedback on the performance of {count} ",
        _CRITERIA_MULTIMODAL if kind == "multimodal" else _CRITERIA_TEXT,
        f"Please first output a single line containing only {count} values indicating the scores for ",
        f"Assistant {numbers}, respectively. The {count} scores are separated by a space. ",
        "In the subsequent line, please provide a comprehensive explanation of your evaluation, avoiding any ",
        "potential bias and ensuring that the order in which the responses were presented ",
        END,
        response_prefix(kind),
    ]
    return "".join(parts)


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
