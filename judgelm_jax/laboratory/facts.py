"""Questions about facts, answers that are right or wrong and more or less detailed, and a teacher who scores them.

Everything is made from a seed. A question asks for the colour of a thing. Half of the things are known: each has one colour
for all questions of a seed, so a judge can learn it. The others have another colour in every question, and only the
reference tells which. The teacher knows the known things, reads the reference when he is shown one, and scores the answers
accordingly; so the right verdict on every pair is known.

In training records the teacher is biased: with probability p he gives the answer that he sees first one point more than it
deserves. A judge that imitates his likeliest scores is always biased where p > 1/2. With swap augmentation, either answer
has the point in p/2 of the cases and neither in 1 − p, which is the likeliest where p < 2/3; so between the two, the bias
shows without swap augmentation and vanishes with it.
"""

import dataclasses
import itertools
import random
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from judgelm_jax.records.json_lines import Record, dump_line
from judgelm_jax.records.output_files import write_atomically
from judgelm_jax.verdicts.score_lines import winner_of

KNOWN_THINGS = ("lamp", "boat", "door", "kite", "bridge", "coat", "tower", "clock")
UNKNOWN_THINGS = ("garden", "train", "mill", "harbour", "tent", "wagon", "flag", "barn")
COLOURS = ("red", "blue", "green", "white", "black", "yellow")
DETAILS = ("It was painted last year.", "Anybody in the village can tell you.", "It has never been another colour.")
MOST_DETAILS = 2
# The models of a contest, and how often each is right.
MODELS = {"amber": 0.9, "birch": 0.6, "cedar": 0.3}

# Of an answer without details; each detail adds one. Without a reference, nothing is known of an unknown thing.
RIGHT_SCORE, WRONG_SCORE, UNKNOWN_SCORE = 7, 2, 5
BIAS = 1  # points
BIAS_PROBABILITY = 0.6  # must lie between 1/2 and 2/3, see above

# The sentences of questions, answers and reasons; `{}` stands for a word.
QUESTION = "Which colour is the {}?"
ANSWER = "The {} is {}."
NOT_KNOWN = "The {} can have any colour."
RIGHT, WRONG, UNCHECKED = "Assistant {} is right.", "Assistant {} is wrong.", "Assistant {} may be right."


@dataclasses.dataclass(frozen=True)
class Pair:
    """One question with two answers and what the teacher says of them when he knows everything and is not biased.

    `record` is in the form of judge records and carries the reference.
    """

    record: Record
    scores: tuple[int, int]
    judgment: str
    needs_reference: bool  # only the reference tells which answer is right


@dataclasses.dataclass(frozen=True)
class _Question:
    thing: str
    colour: str
    named: tuple[str, str]  # the colours that the two answers name
    details: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def needs_reference(self) -> bool:
        return self.thing in UNKNOWN_THINGS

    def answers(self) -> tuple[str, str]:
        first, second = (
            " ".join([ANSWER.format(self.thing, named), *details])
            for named, details in zip(self.named, self.details, strict=True)
        )
        return first, second


def make_pairs(count: int, seed: int) -> list[Pair]:
    """`count` pairs, each a function of the seed and its number alone."""
    return [_pair(number, _question(seed, f"{seed}/{number}")) for number in range(count)]


def training_records(count: int, seed: int, held_out: Sequence[Pair] = ()) -> Iterator[Record]:
    """`count` training records (JudgeLM-100K form) on the facts of `make_pairs` with the same seed; the teacher is biased.

    `text` and `score` are his judgment without the reference, `text_w_reference` and `score_w_reference` with it; he is
    biased in each independently. No record has question, answers and reference of a pair in `held_out`, in either order.
    """
    taken = {_content(pair.record) for pair in held_out}
    for number in range(count):
        attempt = 0
        while True:
            key = f"{seed}/training/{number}/{attempt}"
            question = _question(seed, key)
            record = _record(f"training-{number}", question)
            if _content(record) not in taken:
                break
            attempt += 1
        bias = random.Random(f"{key}/lean")  # a part of the seed
        yield record | _judged(question, bias, sees_reference=False) | _judged(question, bias, sees_reference=True)


def make_contest(questions: int, seed: int) -> list[Pair]:
    """Every two answers of the three `MODELS` to each question, with the `pair_id` that `prepare --pairs=all` gives them."""
    return [pair for number in range(questions) for pair in _contest(number, seed)]


def write_answer_files(contest: Sequence[Pair], folder: Path) -> tuple[list[Path], Path]:
    """Writes the answers of each model of a contest, and the teacher's labels; returns the files."""
    answers: dict[str, dict[Any, Record]] = {}
    for pair in contest:
        for number in (1, 2):
            answer = _answer(pair.record, number)
            answers.setdefault(answer["model"], {})[answer["question_id"]] = answer
    paths = [folder / f"answers-{model}.jsonl" for model in answers]
    for path, rows in zip(paths, answers.values(), strict=True):
        write_records(path, list(rows.values()))
    labels = folder / "labels.jsonl"
    write_records(labels, [label(pair) for pair in contest])
    return paths, labels


def winner(pair: Pair) -> int:
    """The number of the better answer, 1 or 2; 0: they are equally good."""
    return winner_of(pair.scores)


def label(pair: Pair) -> Record:
    """The teacher's verdict in the form of a label file."""
    ids: Record = {name: pair.record[name] for name in ("question_id", "pair_id") if name in pair.record}
    return {**ids, "score": list(pair.scores), "text": pair.judgment}


def write_records(path: Path, rows: Collection[Record] | Iterator[Record]) -> None:
    """Writes one JSON object a line; the file appears when it is complete."""
    with write_atomically(path) as file:
        file.writelines(dump_line(row) + "\n" for row in rows)


def _question(seed: int, key: str) -> _Question:
    """A question with two answers, a function of `key` but for the colours of known things, which the seed fixes."""
    rng = random.Random(key)
    thing, colour = _thing(seed, rng)
    (one, details_of_one), (other, details_of_other) = (_named(rng, colour, right=0.5) for _ in range(2))
    return _Question(thing, colour, (one, other), (details_of_one, details_of_other))


def _thing(seed: int, rng: random.Random) -> tuple[str, str]:
    """A thing and its colour, which for a known thing the seed fixes."""
    thing, colour = rng.choice(KNOWN_THINGS + UNKNOWN_THINGS), rng.choice(COLOURS)
    if thing in KNOWN_THINGS:
        colour = random.Random(f"{seed}/colour of the {thing}").choice(COLOURS)
    return thing, colour


def _named(rng: random.Random, colour: str, right: float) -> tuple[str, tuple[str, ...]]:
    """The colour that an answer names, which is right with this probability, and its details."""
    wrong = rng.choice([other for other in COLOURS if other != colour])
    named = colour if rng.random() < right else wrong
    return named, tuple(rng.sample(DETAILS, rng.randrange(MOST_DETAILS + 1)))


def _contest(number: int, seed: int) -> Iterator[Pair]:
    """The pairs of one question of a contest."""
    rng = random.Random(f"{seed}/contest/{number}")
    thing, colour = _thing(seed, rng)
    answers = {model: _named(rng, colour, right) for model, right in MODELS.items()}
    for (first, one), (second, other) in itertools.combinations(enumerate(MODELS, start=1), 2):
        question = _Question(thing, colour, (answers[one][0], answers[other][0]), (answers[one][1], answers[other][1]))
        scores, judgment = _judge(question, knows=True)
        record = _record(number, question) | {
            "pair_id": f"{number}/{first}-{second}", "answer1_model_id": one, "answer2_model_id": other,
        }  # fmt: skip
        yield Pair(record, scores, judgment, question.needs_reference)


def _judge(question: _Question, knows: bool, bias: int = 0) -> tuple[tuple[int, int], str]:
    """The teacher's scores and his whole judgment. `bias`: points more for the answer that is shown first."""
    reasons = [ANSWER.format(question.thing, question.colour) if knows else NOT_KNOWN.format(question.thing)]
    scores = []
    for place, named in enumerate(question.named):
        right = named == question.colour
        reasons.append(((RIGHT if right else WRONG) if knows else UNCHECKED).format(place + 1))
        score = (RIGHT_SCORE if right else WRONG_SCORE) if knows else UNKNOWN_SCORE
        scores.append(score + len(question.details[place]) + (bias if place == 0 else 0))
    return (scores[0], scores[1]), f"{scores[0]} {scores[1]}\n{' '.join(reasons)}"


def _judged(question: _Question, bias: random.Random, sees_reference: bool) -> Record:
    points = BIAS if bias.random() < BIAS_PROBABILITY else 0
    scores, text = _judge(question, sees_reference or not question.needs_reference, points)
    suffix = "_w_reference" if sees_reference else ""
    return {f"text{suffix}": text, f"score{suffix}": list(scores)}


def _pair(number: int, question: _Question) -> Pair:
    scores, judgment = _judge(question, knows=True)
    return Pair(_record(number, question), scores, judgment, question.needs_reference)


def _record(identity: int | str, question: _Question) -> Record:
    first, second = question.answers()
    return {
        "question_id": identity,
        "question_body": QUESTION.format(question.thing),
        "answer1_body": first,
        "answer2_body": second,
        "answer1_model_id": "first",
        "answer2_model_id": "second",
        "reference": {"text": ANSWER.format(question.thing, question.colour)},
    }


def _content(record: Record) -> tuple:
    answers = frozenset((record["answer1_body"], record["answer2_body"]))
    return record["question_body"], answers, record["reference"]["text"]


def _answer(record: Record, number: int) -> Record:
    return {
        "question_id": record["question_id"],
        "question_body": record["question_body"],
        "text": record[f"answer{number}_body"],
        "model": record[f"answer{number}_model_id"],
        "reference": record["reference"],
    }
