"""Answers of several models joined into judge records, and the pairs that are judged of them."""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.formats.answers import Answers
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import answers_of, question_identity, reference_of
from judgelm_jax.verdicts.merging import OUTPUT_FIELDS

# What a joined record holds of each answer, in fields `answerK_…`.
_OF_ANSWER = ("body", "model_id", "metadata")
_KNOWN = ("question_id", "question_body", "text", "model", "scores", "reference", "conversation")
_TAKEN = (*OUTPUT_FIELDS, "pair_id", "score", "decoding_method")


def join_answers(groups: Sequence[Answers], references: Mapping[str, str] | None, inner: bool) -> tuple[list[Record], int]:
    """Judge records of the answers of one or more models, in the order of the first.

    Args:
      groups: a group a model.
      references: texts by question_id, instead of those in the files; None to take those.
      inner: leave out questions that a model did not answer; else they are an error.

    Returns the records, and the number of questions that were left out.

    Raises:
      InputError: a question that is missing in a group (unless `inner`), or whose text or reference differs between groups.
    """
    first = groups[0]
    asked = dict.fromkeys(key for group in groups for key in group.rows)
    shared = [key for key in first.rows if all(key in group.rows for group in groups)]
    if not inner:
        for one, other in itertools.permutations(groups, 2):
            missing = next((key for key in one.rows if key not in other.rows), None)
            if missing is not None:
                raise InputError(
                    f"{one.places[missing]}: question_id {missing!r} is not in the answers of {other.model}; every model needs "
                    "an answer to it, or leave such questions out with --join=inner"
                )
    if not shared:
        raise InputError(f"{first.model} and the others have no question in common; check that the ids are of one benchmark")
    return [_record(key, groups, references) for key in shared], len(asked) - len(shared)


def chosen_pairs(record: Record, pairs: str) -> Iterator[tuple[int, int]]:
    """The pairs of answer numbers, from 1, that are judged of a record.

    `all`: every two. `baseline:NAME`: that model against each other one, as the first answer. `sample:K`: K drawn for
    the question, by its id alone; all where there are no more.

    Raises:
      InputError: no or several answers of that name.
    """
    count = len(answers_of(record))
    every = list(itertools.combinations(range(1, count + 1), 2))
    kind, _, value = pairs.partition(":")
    if kind == "all":
        yield from every
    elif kind == "sample":
        drawn = random.Random(question_identity(record)).sample(every, min(int(value), len(every)))
        yield from sorted(drawn)
    else:
        models = [record[f"answer{number}_model_id"] for number in range(1, count + 1)]
        if models.count(value) != 1:
            raise InputError(f"--pairs={pairs}: the models are {', '.join(models)}; name one of them")
        baseline = models.index(value) + 1
        yield from ((baseline, number) for number in range(1, count + 1) if number != baseline)


def pairs_of(record: Record, pairs: str) -> list[Record]:
    """Of a record with N answers, a record for each of `chosen_pairs`.

    Each has the `pair_id` QUESTION/FIRST-SECOND, with the answers counted from 1.
    """
    count = len(answers_of(record))
    answered = {f"answer{number}_{field}" for number in range(1, count + 1) for field in _OF_ANSWER}
    conversations = {f"conversation_{number}" for number in range(1, count + 1)}
    common = {name: value for name, value in record.items() if name not in answered | conversations and name != "score"}
    made = []
    for chosen in chosen_pairs(record, pairs):
        pair = {"pair_id": f"{question_identity(record)}/{chosen[0]}-{chosen[1]}", **common}
        for place, number in enumerate(chosen, start=1):
            pair |= {f"answer{place}_{field}": record[f"answer{number}_{field}"] for field in _OF_ANSWER}
            if f"conversation_{number}" in record:
                pair[f"conversation_{place}"] = record[f"conversation_{number}"]
        if "score" in record:
            pair["score"] = [record["score"][number - 1] for number in chosen]
        made.append(pair)
    return made


def _other_fields(rows: Sequence[Record]) -> tuple[Record, list[Record]]:
    """What a record keeps of fields that say nothing to the judge: those that are the same in all answers, and those of each.

    A field of the second kind, or one whose name a record or a judgment needs for something else, goes into the metadata of the
    answer; null says nothing.
    """
    names = dict.fromkeys(name for row in rows for name in row if name not in _KNOWN)
    shared = {
        name: rows[0][name]
        for name in names
        if all(name in row and row[name] == rows[0][name] for row in rows)
        and name not in _TAKEN
        and not name.startswith(("answer", "conversation"))
    }
    own = [{name: row[name] for name in names if row.get(name) is not None and name not in shared} for row in rows]
    return shared, own


def _record(key: str, groups: Sequence[Answers], references: Mapping[str, str] | None) -> Record:
    rows = [group.rows[key] for group in groups]
    record: Record = {"question_id": rows[0]["question_id"], "question_body": rows[0]["question_body"]}
    common, own = _other_fields(rows)
    record |= common
    given: Record | None = None
    for number, (group, row) in enumerate(zip(groups, rows, strict=True), start=1):
        place = group.places[key]
        if row["question_body"] != record["question_body"]:
            raise InputError(
                f"{place}: question_body differs from that in {groups[0].places[key]}; all models must answer one question"
            )
        record[f"answer{number}_body"] = row["text"]
        record[f"answer{number}_model_id"] = row.get("model") or group.model
        record[f"answer{number}_metadata"] = own[number - 1]
        if "conversation" in row:
            record[f"conversation_{number}"] = row["conversation"]
        if reference_of(row) is not None:
            if given is not None and references is None and reference_of(row) != reference_of(given):
                raise InputError(f"{place}: reference differs from that in another file; keep one, or pass --references")
            given = given or row
    if any("scores" in row for row in rows):
        record["score"] = [row.get("scores") for row in rows]
    if references is not None and key in references:
        record["reference"] = {"text": references[key]}
    elif references is None and given is not None:
        record["reference"] = given["reference"]
    return record
