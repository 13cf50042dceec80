"""The grammar of the line that says a verdict, and how such a line is read in what a judge wrote."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np

# All strings of the grammar 10(\.0)?|[0-9](\.[0-9])?
SCORE_STRINGS: tuple[str, ...] = (
    *(str(whole) for whole in range(11)),
    *(f"{whole}.{tenth}" for whole in range(10) for tenth in range(10)),
    "10.0",
)
# One score as judges write it: `8`, `8.5`, `8/10`.
_SCORE = re.compile(r"([0-9]{1,2}(?:\.[0-9]*)?)(?:\s*/\s*10)?")
_SEPARATOR = re.compile(r"\s*,\s*|\s+")


@dataclasses.dataclass(frozen=True)
class LineForm:
    """The lines that may stand behind a prompt: `count` scores, each one of `words`.

    `end`: the text with which the prompt ends. `begins`: what comes between it and the first score, `ending` behind the last.
    `winners`: where the words are no scores, the position of the better answer that each one names (0: a tie).
    """

    end: str
    begins: str
    words: tuple[str, ...]
    count: int
    ending: str = "\n"
    winners: tuple[int, ...] | None = None

    def lines(self) -> Iterator[str]:
        """All lines, with their ending, the last score running fastest."""
        for words in itertools.product(self.words, repeat=self.count):
            yield f"{self.begins}{' '.join(words)}{self.ending}"

    def likeliest(self, log_probabilities: np.ndarray) -> str:
        """The scores of the line with the largest of [lines], in the order of `lines`; or of [count, words], of each score the
        largest."""
        if log_probabilities.ndim == 2:
            places = log_probabilities.argmax(axis=1)
        else:
            places = np.unravel_index(int(log_probabilities.argmax()), (len(self.words),) * self.count)
        return " ".join(self.words[place] for place in places)

    def read(self, text: str) -> list[float] | int | None:
        """What a response says, in the order that was shown: scores, or the position of the winner. None: nothing that counts.

        A word may be written in small or capital letters; no letter or digit follows it.
        """
        if self.winners is None:
            line = text.split(self.ending, 1)[0] if self.ending else text
            return parse_scores(line.strip(), self.count)
        begin = text.lstrip().casefold()
        for word, winner in sorted(zip(self.words, self.winners, strict=True), key=lambda pair: -len(pair[0])):
            if begin.startswith(word.casefold()) and not begin[len(word.casefold()) :][:1].isalnum():
                return winner
        return None


def score_lines(count: int) -> Iterator[str]:
    """Every first line that the grammar allows for `count` answers, with its newline: `a b\\n` for two."""
    return LineForm("", "", SCORE_STRINGS, count).lines()


def parse_scores(text: str, count: int) -> list[float] | None:
    """The `count` scores of the first line, each from 0 to 10; None where the line is anything else.

    Between scores stand spaces, tabs or a comma; a score may be written `8/10`. A line with any other text
    is prose, and prose is not guessed at.
    """
    rest = text.split("\n", 1)[0].strip()
    scores: list[float] = []
    while match := _SCORE.match(rest):
        scores.append(float(match[1]))
        rest = rest[match.end() :]
        if separator := _SEPARATOR.match(rest):
            rest = rest[separator.end() :]
            if not rest:
                return None  # a comma with nothing after it
        elif rest:
            return None
    if rest or len(scores) != count or max(scores, default=0.0) > 10:
        return None
    return scores


def parse_scores_upstream(text: str) -> list[float]:
    """The two scores as the published metric code reads them; [-1, -1] where it fails.

    Commas count as spaces, the line is split at each single space, and whatever `float` accepts is a score
    (`nan` too).
    """
    parts = text.split("\n")[0].replace(",", " ").split(" ")
    try:
        first, second = (float(part) for part in parts)
    except ValueError:
        return [-1.0, -1.0]
    return [first, second]


def winner_of(scores: Sequence[float]) -> int:
    """The number (from 1) of the answer whose score is above all others; 0 where the best score is shared."""
    for number, score in enumerate(scores, start=1):
        if all(score > other for place, other in enumerate(scores, start=1) if place != number):
            return number
    return 0


def explanation_of(text: str) -> str:
    """The text after the first line, stripped."""
    return text.partition("\n")[2].strip()
