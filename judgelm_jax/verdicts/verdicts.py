"""The grammar of score lines; text to scores, winner and status; several arrangements merged into one judgment."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.prompts.arrangements import Arrangement, in_own_order, mean_scores, name_of, position_effects, ranking
from judgelm_jax.records.json_lines import Record
from judgelm_jax.verdicts import distributions
from judgelm_jax.verdicts.distributions import AnyDistribution, Distribution, Factors, Outcomes

STATUSES = ("ok", "truncated", "unparsed", "overflow")  # from good to bad

# All strings of the grammar 10(\.0)?|[0-9](\.[0-9])?
SCORE_STRINGS: tuple[str, ...] = (
    *(str(whole) for whole in range(11)),
    *(f"{whole}.{tenth}" for whole in range(10) for tenth in range(10)),
    "10.0",
)

# One score as judges write it: `8`, `8.5`, `8/10`.
_SCORE = re.compile(r"([0-9]{1,2}(?:\.[0-9]*)?)(?:\s*/\s*10)?")
_SEPARATOR = re.compile(r"\s*,\s*|\s+")

# Everything that `judgment` may add to a record, in any mode.
OUTPUT_FIELDS = (
    "pred_text",
    "pred_id",
    "pred_model_id",
    "tstamp",
    "pred_preset",
    "status",
    "scores",
    "winner",
    "order",
    "consistent",
    "truncated",
    "finish",
    "explanation",
    "forward",
    "reversed",
    "probabilities",
    "expected_scores",
    "entropy",
    "covered_mass",
    "position_bias",
    "calibrated",
    "ranking",
    "arrangements",
    "position_effects",
    "score_probabilities",
    "reference_used",
    "soft_score",
    "alternatives",
    "factorized",
    "ranked_by",
    "strengths",
    "pairs",
)


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


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the judge said about answers in one arrangement, `order`.

    `scores`, `winner` and `truncated` are in the record's own order; `pred_text` and `explanation` speak of
    the answers in the order that was shown. `truncated` counts the tokens removed from each answer. `finish`
    is None where nothing was generated. `distribution` is there where the judge was asked for one.
    """

    status: str
    scores: tuple[float, ...] | None
    winner: int | None
    order: Arrangement
    pred_text: str
    explanation: str
    finish: str | None
    truncated: tuple[int, ...]
    distribution: AnyDistribution | None = None


@dataclasses.dataclass(frozen=True)
class Reading:
    """Where a response says its verdict: first, or behind the last `marker`, in this form. It begins with `begun`, which the
    judge did not write itself."""

    form: LineForm
    begun: str = ""
    marker: str | None = None

    def parts(self, text: str) -> tuple[str | None, str]:
        """What holds the verdict (None: nothing does), and the reason."""
        if self.marker is None:
            return text[len(self.begun) :], explanation_of(text)
        reason, marker, said = text.rpartition(self.marker.strip())
        return (said, reason.strip()) if marker else (None, text.strip())


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


def verdict_from_text(
    text: str, order: Arrangement, finish: str, truncated: Sequence[int], reading: Reading | None = None
) -> Verdict:
    """Reads the response of a judge that saw the answers in this order.

    `truncated`: tokens removed from each answer, in the record's own order. `reading`: JudgeLM's where not given, which says a
    score for each answer in its first line.
    """
    reading = reading or Reading(LineForm("", "", SCORE_STRINGS, len(order)))
    said, reason = reading.parts(text)
    shown = None if said is None else reading.form.read(said)
    if shown is None:
        return Verdict("unparsed", None, None, order, text, reason, finish, tuple(truncated))
    status = "truncated" if any(truncated) else "ok"
    if isinstance(shown, int):
        winner = order[shown - 1] if shown else 0
        return Verdict(status, None, winner, order, text, reason, finish, tuple(truncated))
    scores = in_own_order(shown, order)
    return Verdict(status, scores, winner_of(scores), order, text, reason, finish, tuple(truncated))


def verdict_from_distribution(
    distribution: AnyDistribution, text: str, order: Arrangement, truncated: Sequence[int], reason: str = ""
) -> Verdict:
    """The most likely line and the most likely winner; `text` ends in that line, in the order that was shown, behind `reason`
    where there is one."""
    status = "truncated" if any(truncated) else "ok"
    scores, winner = distribution.most_likely(), distribution.winner()
    return Verdict(status, scores, winner, order, text, reason, "stop", tuple(truncated), distribution)


def overflow_verdict(order: Arrangement) -> Verdict:
    """The verdict on a record whose prompt does not fit, even with empty answers: no text and no scores."""
    return Verdict("overflow", None, None, order, "", "", None, (0,) * len(order))


def kept(record: Record, keep_as: str | None = None) -> Record:
    """The record as its judgment holds it: unchanged, or with `keep_as` before the names that the judgment takes.

    Raises:
      InputError: a field has a name that the judgment takes, and there is no `keep_as`, or the new name is taken, too. The
        message has no place.
    """
    taken = [name for name in record if name in OUTPUT_FIELDS]
    if not taken:
        return record
    if keep_as is None:
        raise InputError(
            f"the field {taken[0]!r} is one that the judgment has, too; rename it, or pass --keep_as=input_ to keep it as "
            f"'input_{taken[0]}'"
        )
    for name in taken:
        if keep_as + name in record or keep_as + name in OUTPUT_FIELDS:
            raise InputError(
                f"the field {name!r} cannot be kept as {keep_as + name!r}, a name that is taken; give --keep_as another value"
            )
    return {keep_as + name if name in taken else name: value for name, value in record.items()}


def judgment(
    record: Record,
    verdict: Verdict | Sequence[Verdict],
    *,
    more: Record | None = None,
    keep_as: str | None = None,
    pred_id: str,
    pred_model_id: str,
    tstamp: float,
    pred_preset: str | None = None,
) -> Record:
    """The output row: the input record as `kept` gives it, the verdict, and the fields of `more`.

    Verdicts on several arrangements are merged: scores are the mean, the winner follows from it (or from the mean
    distribution; of labels that contradict one another it is a tie), the status is the worst, `pred_text` that of the first.
    Without scores in one of them there are none in the merged row.

    Raises:
      InputError: as `kept`.
    """
    row = dict(kept(record, keep_as))
    verdicts = (verdict,) if isinstance(verdict, Verdict) else tuple(verdict)
    row |= {
        "pred_text": verdicts[0].pred_text,
        "pred_id": pred_id,
        "pred_model_id": pred_model_id,
        "tstamp": tstamp,
    }
    if pred_preset is not None:
        row["pred_preset"] = pred_preset
    fields = _pair_fields if len(verdicts[0].order) == 2 else _arrangement_fields
    return row | fields(verdicts) | (more or {})


def _pair_fields(verdicts: Sequence[Verdict]) -> Record:
    if len(verdicts) == 1:
        return {**_fields(verdicts[0]), "order": name_of(verdicts[0].order)}
    forward, back = verdicts
    fields: Record = {**_fields(_merge(verdicts)), "order": "both"}
    fields["consistent"] = forward.winner is not None and forward.winner == back.winner
    if forward.distribution is not None and back.distribution is not None:
        fields["position_bias"] = distributions.position_bias(forward.distribution, back.distribution)
    return fields | {"forward": _fields(forward), "reversed": _fields(back)}


def _arrangement_fields(verdicts: Sequence[Verdict]) -> Record:
    """The fields of any number of answers but two: in one arrangement or several, their form is the same."""
    merged = _merge(verdicts)
    fields: Record = {**_fields(merged), "order": "arrangements"}
    if len(merged.order) > 1:
        fields["ranking"] = None if merged.scores is None else ranking(merged.scores)
    fields["arrangements"] = [{"order": list(verdict.order), **_fields(verdict)} for verdict in verdicts]
    if len(verdicts) > 1:
        scores = [verdict.scores for verdict in verdicts if verdict.scores is not None]
        complete = len(scores) == len(verdicts)
        fields["position_effects"] = position_effects(scores, [one.order for one in verdicts]) if complete else None
    return fields


def _merge(verdicts: Sequence[Verdict]) -> Verdict:
    first = verdicts[0]
    if len(verdicts) == 1:
        return first
    scores, winner, distribution = None, None, None
    of_all = [verdict.scores for verdict in verdicts if verdict.scores is not None]
    if len(of_all) == len(verdicts):
        scores = mean_scores(of_all)
        winner = winner_of(scores)
    elif all(verdict.scores is None and verdict.winner is not None for verdict in verdicts):
        winners = {verdict.winner for verdict in verdicts}
        winner = winners.pop() if len(winners) == 1 else 0  # labels that contradict one another are a tie
    found = [verdict.distribution for verdict in verdicts if verdict.distribution is not None]
    if len(found) == len(verdicts):
        distribution = distributions.mean(found)
        winner = distribution.winner()
        if len(first.order) == 2:
            scores = distribution.most_likely()
    return dataclasses.replace(
        first,
        status=max((verdict.status for verdict in verdicts), key=STATUSES.index),
        scores=scores,
        winner=winner,
        finish="length" if any(verdict.finish == "length" for verdict in verdicts[1:]) else first.finish,
        truncated=tuple(max(of_answer) for of_answer in zip(*(verdict.truncated for verdict in verdicts), strict=True)),
        distribution=distribution,
    )


def _fields(verdict: Verdict) -> Record:
    fields: Record = {
        "pred_text": verdict.pred_text,
        "status": verdict.status,
        "scores": None if verdict.scores is None else list(verdict.scores),
        "winner": verdict.winner,
        "finish": verdict.finish,
        "explanation": verdict.explanation,
        "truncated": list(verdict.truncated),
    }
    alone = len(verdict.order) == 1  # nobody wins
    if alone:
        del fields["winner"]
    found = verdict.distribution
    if found is not None:
        if alone and not isinstance(found, Outcomes):
            fields |= _grades(found)
        else:
            fields["probabilities"] = found.outcomes()
        if not isinstance(found, Outcomes):
            fields["expected_scores"] = found.expected_scores()
        fields |= {"entropy": found.entropy(), "covered_mass": found.covered_mass}
        if isinstance(found, Factors):
            fields["factorized"] = True
    return fields


def _grades(distribution: Distribution | Factors) -> Record:
    """The probability of each score that a single answer may get, by the score as it is written."""
    pairs = zip(distribution.values, distribution.probabilities, strict=True)
    return {"score_probabilities": {f"{value:g}": float(probability) for value, probability in pairs}}
