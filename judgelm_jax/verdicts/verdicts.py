"""What a judge said about answers in one arrangement: scores, winner, status, from its text or from a distribution."""

import dataclasses
from collections.abc import Sequence

from judgelm_jax.prompts.arrangements import Arrangement, in_own_order
from judgelm_jax.verdicts.distributions import AnyDistribution
from judgelm_jax.verdicts.score_lines import SCORE_STRINGS, LineForm, explanation_of, winner_of

STATUSES = ("ok", "truncated", "unparsed", "overflow")  # from good to bad


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
