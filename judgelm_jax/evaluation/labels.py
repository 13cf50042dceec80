"""One row of a label file: who should win, and what the single annotators and the teacher's scores said."""

import dataclasses

from judgelm_jax.errors import InputError
from judgelm_jax.records.json_lines import Record
from judgelm_jax.verdicts import score_lines


@dataclasses.dataclass(frozen=True)
class Label:
    """The `winner` is 1, 2, 0 for a tie, or None where the teacher failed or the label is `out_of_range`.

    `annotators`: what each of several people said, None where one said nothing. `scores`: the teacher's two scores.
    """

    winner: int | None
    out_of_range: bool = False
    annotators: tuple[int | None, ...] | None = None
    scores: tuple[float, float] | None = None


def read_label(row: Record, parser: str) -> Label:
    """Reads `winner`, else `text` (its first line holds the scores), else `score`; a field that is null is not there.

    A score of -1 says that the teacher failed, and so does a text that does not parse, unless a `score` from 0 to 10 stands
    beside it. A number out of range (a winner 3, a score 50) is no error but drops the label. `upstream` reads `text` as the
    published metric code does. 1.0 is 1, as files written by pandas have it.

    Raises:
      InputError: none of the fields is there, or one is of the wrong type. The message has no place.
    """
    people = _annotators(row)
    label = _from_winner(row) if row.get("winner") is not None else _from_scores(row, parser)
    return dataclasses.replace(label, annotators=people)


def number_as_int(value: object) -> int | None:
    """A whole number, 1.0 included; None for anything else (true is no number)."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _from_winner(row: Record) -> Label:
    value = row["winner"]
    if type(value) not in (int, float):
        raise InputError(f"winner is {value!r}; it is the number 1, 2 or 0 for a tie")
    winner = number_as_int(value)
    return Label(winner) if winner in (0, 1, 2) else Label(None, out_of_range=True)


def _from_scores(row: Record, parser: str) -> Label:
    pair = _pair(row.get("score"))
    text = row.get("text")
    if text is not None:
        if not isinstance(text, str):
            raise InputError("the field 'text' is no string; its first line should hold the scores")
        if parser == "upstream":
            parsed = score_lines.parse_scores_upstream(text)
            return Label(None) if -1 in parsed else Label(score_lines.winner_of(parsed), scores=(parsed[0], parsed[1]))
        if pair is not None and -1 in pair:
            return Label(None)
        if (scores := score_lines.parse_scores(text, 2)) is not None:
            return Label(score_lines.winner_of(scores), scores=(scores[0], scores[1]))
    if pair is not None:
        if -1 in pair:
            return Label(None)
        in_range = all(0 <= value <= 10 for value in pair)
        return Label(score_lines.winner_of(pair), scores=pair) if in_range else Label(None, out_of_range=True)
    if text is not None:
        return Label(None, out_of_range=_names_numbers_out_of_range(text))
    if row.get("score") is not None:
        raise InputError("score is no pair of numbers; fix it, or give 'text' or 'winner'")
    if "winner" in row:
        return Label(None)
    raise InputError("none of the fields 'winner', 'text' and 'score' is there; a label needs one of them")


def _names_numbers_out_of_range(text: str) -> bool:
    """Whether a text that does not parse begins with two numbers all the same."""
    return score_lines.parse_scores_upstream(text) != [-1.0, -1.0]


def _pair(score: object) -> tuple[float, float] | None:
    """The teacher's `score`; None for anything else, for in published files it may be a list of generation statistics."""
    if not isinstance(score, list) or len(score) != 2 or any(type(value) not in (int, float) for value in score):
        return None
    return float(score[0]), float(score[1])


def _annotators(row: Record) -> tuple[int | None, ...] | None:
    """What several people said; an entry that is null or no outcome counts as silence."""
    values = row.get("annotators")
    if not isinstance(values, list) or not values:
        return None
    numbers = [number_as_int(value) for value in values]
    return tuple(number if number in (0, 1, 2) else None for number in numbers)
