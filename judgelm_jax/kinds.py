"""What a kind of judging is, as data: what it needs of a record, how that is shown, what may be answered, what is made of it.

Judge, engine, output and resume know cases, arrangements of N answers and lines of M scores, and no kind by name.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from judgelm_jax.errors import InputError
from judgelm_jax.prompts import prompts
from judgelm_jax.prompts.prompts import Wording
from judgelm_jax.records.conversations import ALL, LAST, check_conversations, render, turns_of
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import answers_of, check_text
from judgelm_jax.verdicts.score_lines import SCORE_STRINGS, LineForm
from judgelm_jax.verdicts.verdicts import Reading, Verdict


@dataclasses.dataclass(frozen=True)
class Case:
    """What of a record is judged together: `answers`, in the record's own order.

    `reference`: the text of the reference answer. `known`: an answer that is known to be good. Neither is judged, and neither
    is ever shortened. `texts`: further fields that the prompt names. `wording`: the prompt, where it is not that of the kind.
    `shorter`: the same with fewer and fewer turns before the last, taken where it is too long, before answers are shortened.
    """

    question: str
    answers: tuple[str, ...]
    reference: str | None = None
    known: str | None = None
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    wording: Wording | None = None
    shorter: tuple["Case", ...] = ()


# The verdicts of a record, of each case those of its arrangements → those that count, and further fields of the judgment.
Conclude = Callable[[Sequence[Case], Sequence[Sequence[Verdict]]], tuple[Sequence[Verdict], Record]]


def _only_case(cases: Sequence[Case], verdicts: Sequence[Sequence[Verdict]]) -> tuple[Sequence[Verdict], Record]:
    (own,) = verdicts
    return own, {}


@dataclasses.dataclass(frozen=True)
class Answering:
    """How a judge answers: where in its response the verdict stands, and what it may be beside scores.

    The response is begun with `lead`. The verdict stands first, or behind `marker` after a reason of at most `reason_tokens`
    tokens, and `ending` ends it. `winners`: which answer each label means (0: a tie); None: the verdict is made of scores.
    """

    lead: str = ""
    marker: str | None = None
    reason_tokens: int = 0
    ending: str = "\n"
    winners: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of judging.

    `answers`: the fewest and the most `answerK_body` of a record (None: any number). `cases`: from a record and the text of its
    reference (None: without) to what is judged. `needs_reference`: a case without reference and without known-good answer is
    refused, unless `--reference=none` says that this is meant. `wording`: the prompt. `richer`: prompts that are taken in its
    place, the first of which the record has all fields. `scores`: what a score may be, as it is written. `conclude`: from the
    verdicts of all cases to the judgment.

    Of presets (see `presets.Preset`): `answering`; `system` and `chat`, for prompts that are messages of a conversation;
    `sha256` of the preset.

    Of conversations: `structure`, the check of a record that has no `answerK_body`; `of_all_turns`, `cases` where all turns are
    judged and not the last one alone.
    """

    name: str
    answers: tuple[int, int | None]
    cases: Callable[[Record, str | None], tuple[Case, ...]]
    wording: Wording
    needs_reference: bool = False
    scores: tuple[str, ...] = SCORE_STRINGS
    conclude: Conclude = _only_case
    richer: tuple[Wording, ...] = ()
    answering: Answering = Answering()
    system: str = ""
    chat: bool = False
    sha256: str | None = None
    structure: Callable[[Record], None] | None = None
    of_all_turns: Callable[[Record, str | None], tuple[Case, ...]] | None = None

    def cases_of(self, record: Record, reference: str | None, policy: str) -> tuple[Case, ...]:
        """The cases of a record that has the fields which `records.check_record` asks for. `policy`: that of `--reference`.

        Raises:
          InputError: a field that the prompt names is missing, or a reference. The message has no place.
        """
        found = self.cases(record, None if policy == "none" else reference)
        wording = self._wording(record, found)
        texts = {field: record[field] for field in wording.fields()}
        if self.needs_reference and policy != "none" and any(case.known is None and case.reference is None for case in found):
            raise InputError(
                f"--kind={self.name} judges by a reference and this record has none; add the field 'reference', give "
                "--references=FILE, or pass --reference=none to judge without one"
            )
        return tuple(_with(case, {**case.texts, **texts}, wording) for case in found)

    def _wording(self, record: Record, cases: Sequence[Case]) -> Wording:
        referenced = all(case.known is not None or case.reference is not None for case in cases)
        for wording in self.richer:
            if all(isinstance(record.get(field), str) for field in wording.fields()) and (
                referenced or not wording.names_reference()
            ):
                return wording
        for field in self.wording.fields():
            check_text(record, field)
        if not referenced and self.wording.needs_reference:
            raise InputError(
                "the prompt shows a reference and this record has none; add the field 'reference', or --references"
            )
        return self.wording

    def prompt(self, case: Case, answers: Sequence[str]) -> str:
        """The prompt of a case with its answers in the order (and as short) as they are given."""
        wording = case.wording or self.wording
        if self.shows_known(case) and case.known is not None:
            return wording.fill(case.question, (case.known, *answers), case.reference, case.texts, known=True)
        reference = case.known if case.reference is None else case.reference
        return wording.fill(case.question, answers, reference, case.texts)

    def shows_known(self, case: Case) -> bool:
        """Whether the known-good answer takes the first slot, and its score begins the response."""
        return case.known is not None and bool(self.wording.known_score)

    def begun(self, case: Case) -> str:
        """The text with which the response is begun; the prompt ends with it."""
        return self.wording.known_score if self.shows_known(case) else self.answering.lead

    def form(self, case: Case, words: tuple[str, ...], end: str | None = None) -> LineForm:
        """The lines that may follow the prompt of a case: a score of `words` for each answer, or a label.

        `end`: the text with which the prompt ends, where it is a conversation.
        """
        marker, ending, winners = self.answering.marker, self.answering.ending, self.answering.winners
        count = len(case.answers) if winners is None else 1
        if marker is not None:
            end, begins = marker.rstrip(), marker[len(marker.rstrip()) :]
            return LineForm(end, begins, words, count, ending, winners)
        known = self.shows_known(case)
        if end is None:
            end = (case.wording or self.wording).end(len(case.answers) + known, known)
        return LineForm(end, " " if known else "", words, count, ending, winners)

    def reading(self, case: Case, form: LineForm) -> Reading:
        """Where a response to the prompt of a case says its verdict."""
        return Reading(form, self.begun(case), self.answering.marker)


def _all_answers(record: Record, reference: str | None) -> tuple[Case, ...]:
    return (Case(record["question_body"], tuple(answers_of(record)), reference),)


def _graded_answer(record: Record, reference: str | None) -> tuple[Case, ...]:
    """One answer, beside a reference that is known to be good; in the published form the first of two answers is that."""
    question, answers = record["question_body"], answers_of(record)
    if len(answers) == 2:
        return (Case(question, (answers[1],), reference, known=answers[0]),)
    return (Case(question, (answers[0],), known=reference),)


def _says_whether_by_reference(
    cases: Sequence[Case], verdicts: Sequence[Sequence[Verdict]]
) -> tuple[Sequence[Verdict], Record]:
    (case,), (own,) = cases, verdicts
    return own, {"reference_used": case.known is not None or case.reference is not None}


def _alternatives(record: Record, reference: str | None) -> tuple[Case, ...]:
    """One answer beside each alternative of the ground truth, which is known to be good; all parts of one have to be there."""
    if reference is None:
        raise InputError("an answer about an image is judged by its ground truth; add the field 'reference', or --references")
    (answer,) = answers_of(record)
    texts = [part.strip().replace("<AND>", " and ") for part in reference.split("<OR>")]
    return tuple(Case(record["question_body"], (answer,), text, known=text) for text in texts)


def _best_alternative(cases: Sequence[Case], verdicts: Sequence[Sequence[Verdict]]) -> tuple[Sequence[Verdict], Record]:
    """The alternative with the best score counts, the first of equal ones; those without a verdict count as nothing."""
    grades = [_grade(own[0]) for own in verdicts]
    best = max(range(len(grades)), key=lambda number: -1.0 if (grade := grades[number]) is None else grade)
    alternatives = [
        {"reference": case.reference, "score": grade, "status": own[0].status}
        for case, own, grade in zip(cases, verdicts, grades, strict=True)
    ]
    grade = grades[best]
    return verdicts[best], {"soft_score": None if grade is None else grade / 10, "alternatives": alternatives}


def _grade(verdict: Verdict) -> float | None:
    """The expected score of the only answer where there is one, else its score."""
    means = None if verdict.distribution is None else verdict.distribution.expected_scores()
    scores = verdict.scores if means is None else means
    return None if scores is None else scores[0]


def _with(case: Case, texts: Mapping[str, str], wording: Wording) -> Case:
    shorter = tuple(_with(one, texts, wording) for one in case.shorter)
    return dataclasses.replace(case, texts=texts, wording=wording, shorter=shorter)


def _chats(judged: str) -> Callable[[Record, str | None], tuple[Case, ...]]:
    """Two chats as one pair; where that is too long, without the oldest turns."""

    def cases(record: Record, reference: str | None) -> tuple[Case, ...]:
        system, turns = turns_of(record)
        shown = [render(system, turns, judged, left_out) for left_out in range(len(turns))]
        by_turn = any(turn.reference is not None for turn in turns)
        whole, *shorter = (Case(one.question, one.answers, one.reference if by_turn else reference) for one in shown)
        return (dataclasses.replace(whole, shorter=tuple(shorter)),)

    return cases


KINDS = {
    "pair": Kind("pair", (2, 2), _all_answers, prompts.TEXT),
    "multi": Kind("multi", (2, None), _all_answers, prompts.TEXT),
    "single": Kind("single", (1, 2), _graded_answer, prompts.TEXT, needs_reference=True, conclude=_says_whether_by_reference),
    "conversation": Kind(
        "conversation", (2, 2), _chats(LAST), prompts.TEXT, structure=check_conversations, of_all_turns=_chats(ALL)
    ),
    "multimodal": Kind("multimodal", (1, 1), _alternatives, prompts.MULTIMODAL, conclude=_best_alternative),
}
