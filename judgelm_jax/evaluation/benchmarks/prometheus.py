"""Prometheus: answers graded from 1 to 5 by GPT-4, and pairs with a preference (arXiv 2310.08491, 2405.01535)."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks import rules
from judgelm_jax.evaluation.benchmarks.benchmark import (
    Benchmark,
    Loaded,
    Protocol,
    Scored,
    choice,
    convert,
    distinct,
    exchanged,
    find_file,
    imported,
    require,
    rows_of,
    text_id,
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.records.json_lines import Record

_HEADINGS = (
    "###The instruction to evaluate:",
    "###Response to evaluate:",
    "###Reference Answer (Score 5):",
    "###Score Rubrics:",
    "###Feedback:",
)
_REFERENCE, _RUBRIC = _HEADINGS[2:4]
_FILES = (
    "vicuna_eval.json",
    "mt_bench_eval.json",
    "*preference_bench*.json*",
    "*feedback_bench*.json*",
    "preference_collection*_test.json",
    "feedback_collection*_test.json",
    "hhh_alignment_eval.json",
)
_UNKNOWN = "its texts are no item of --data, or those of one that was judged already; check both files"
_PAIR = ("orig_instruction", "orig_response_A", "orig_response_B", "orig_reference_answer", "orig_criteria")
_SINGLE = ("orig_instruction", "orig_response", "orig_reference_answer", "orig_criteria")


def read_prometheus(path: Path, reduction: str = "label") -> Loaded:
    """Reads pairs (`orig_preference`), graded answers (`orig_score`), and both inside prompts (`chosen_instruction` and
    `rejected_instruction`, `gpt4_score`).

    A prompt may have no reference answer. Of a pair inside prompts the texts decide whether the chosen answer stands first.

    Raises:
      InputError: the file is none of these; names the row.
    """
    file = find_file(path, *_FILES)
    rows = read_rows(file)
    first = rows[0][1] if rows else {}
    if "orig_preference" in first:
        return convert(file, rows, _pair)
    if "chosen_instruction" in first:
        return convert(file, rows, _prompt_pair)
    seen: Counter[str] = Counter()
    loaded = convert(file, rows, (lambda _, item: _prompt(item, seen)) if "gpt4_score" in first else _graded)
    return Loaded("single", loaded.records, loaded.labels, loaded.counts)


def _pair(position: int, item: Record) -> tuple[Record, Record, int]:
    (instruction, first, second, reference, criteria), converted = texts_of(item, *_PAIR)
    identity = {"question_id": text_id(instruction), "pair_id": position}
    record = {
        **identity,
        "question_body": instruction,
        "answer1_body": first,
        "answer2_body": second,
        "reference": {"text": reference},
        "criteria": criteria,
    }
    return record, {**identity, "winner": choice(item, "orig_preference", {"A": 1, "B": 2})}, converted


def _graded(position: int, item: Record) -> tuple[Record, Record, int]:
    (instruction, response, reference, criteria), converted = texts_of(item, *_SINGLE)
    identity = {"question_id": text_id(instruction), "pair_id": position}
    label = {**identity, "score": _grade([item.get("orig_score")])}
    return _single(identity, instruction, response, reference, criteria), label, converted


def _prompt(item: Record, seen: Counter[str]) -> tuple[Record, Record, int]:
    require(item, "idx", "response_source", "gpt4_score")
    (text,), converted = texts_of(item, "instruction")
    instruction, response, reference, rubric = _sections(text)
    identity = {"question_id": str(item["idx"]), "pair_id": distinct(f"{item['idx']}/{item['response_source']}", seen)}
    grades = item["gpt4_score"] if isinstance(item["gpt4_score"], list) else [item["gpt4_score"]]
    label = {**identity, "score": _grade(grades), "grades": grades, "category": item.get("category")}
    record = _single(identity, instruction, response, reference, rubric)
    return record | {"answer1_model_id": item["response_source"], "category": item.get("category")}, label, converted


def _prompt_pair(position: int, item: Record) -> tuple[Record, Record, int]:
    texts, converted = texts_of(item, "chosen_instruction", "rejected_instruction")
    (instruction, chosen, reference, rubric), (_, rejected, *_) = (_sections(text) for text in texts)
    tie = item.get("tie") == 1
    turned = int(text_id(instruction, chosen, rejected), 16) % 2
    first, second = (rejected, chosen) if turned else (chosen, rejected)
    identity = {"question_id": text_id(instruction), "pair_id": position}
    record = {
        **_single(identity, instruction, first, reference, rubric),
        "answer2_body": second,
        "category": item.get("source"),
    }
    return record, {**identity, "winner": 0 if tie else 1 + turned, "category": item.get("source")}, converted


def _single(identity: Record, instruction: str, response: str, reference: str | None, rubric: str) -> Record:
    record = {**identity, "question_body": instruction, "answer1_body": response, "rubric": rubric}
    return record if reference is None else {**record, "reference": {"text": reference}}


def _sections(text: str) -> tuple[str, str, str | None, str]:
    """Instruction, response, reference where there is one, and rubric.

    A response may quote headings, so the last of those after it counts.
    """
    begin = text.find(_HEADINGS[0])
    response = text.find(_HEADINGS[1], max(begin, 0))
    last = {heading: text.rfind(heading) for heading in _HEADINGS[2:]}
    if not response < last[_REFERENCE] < last[_RUBRIC]:
        del last[_REFERENCE]
    places = {_HEADINGS[0]: begin, _HEADINGS[1]: response, **last}
    order = list(places.values())
    if -1 in order or order != sorted(order):
        raise InputError("the instruction has not the sections of the benchmark in their order; fetch the file again")
    ends = [*order[1:], len(text)]
    parts = {heading: text[at + len(heading) : end].strip() for (heading, at), end in zip(places.items(), ends, strict=True)}
    return parts[_HEADINGS[0]], parts[_HEADINGS[1]], parts.get(_REFERENCE), parts[_RUBRIC]


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """What the benchmark's program writes: its items with `prometheus_output` and `prometheus_score`.

    Of an answer a list of grades, one a run; of a pair a list of `A`, `B`, `TIE`, of which the first counts, or two lists of
    grades, of the chosen answer and of the rejected one, of which the first run that tells them apart counts. Items are found
    by their texts, whichever answer is A; null is a run that did not parse.
    """
    waiting: dict[str, list[Record]] = {}
    for record in loaded.records:
        waiting.setdefault(text_id(*_texts(record)), []).append(record)
    judgments = []
    for place, item in rows_of(paths):
        try:
            if loaded.kind == "pair":
                judgments.append(_judged_pair(item, waiting, paths[0].stem))
            else:
                judgments.append(_judged_answer(item, waiting))
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
    return judgments


def _texts(record: Record) -> list[str]:
    names = [name for name in ("question_body", "answer1_body", "answer2_body") if name in record]
    return [record[name].strip() for name in names]


def _take(waiting: dict[str, list[Record]], *texts: str) -> Record | None:
    records = waiting.get(text_id(*texts))
    return records.pop(0) if records else None


def _judged_answer(item: Record, waiting: dict[str, list[Record]]) -> Record:
    if "orig_response" in item:
        (instruction, response), _ = texts_of(item, "orig_instruction", "orig_response")
    else:
        (prompt,), _ = texts_of(item, "instruction")
        instruction, response, *_ = _sections(prompt)
    record = _take(waiting, instruction.strip(), response.strip())
    if record is None:
        raise InputError(_UNKNOWN)
    grades = _grades(item.get("prometheus_score"))
    outcome = {"status": "ok", "scores": [sum(grades) / len(grades)]} if grades else {"status": "unparsed", "scores": None}
    return {**record, "pred_text": _output(item), **outcome, "order": "forward"}


def _judged_pair(item: Record, waiting: dict[str, list[Record]], judge: str) -> Record:
    texts, _ = texts_of(item, "orig_instruction", "orig_response_A", "orig_response_B")
    instruction, first, second = (text.strip() for text in texts)
    winner = _named(item, item.get("prometheus_score"))
    record = _take(waiting, instruction, first, second)
    if record is None:
        record, winner = _take(waiting, instruction, second, first), exchanged(winner)
    if record is None:
        raise InputError(_UNKNOWN)
    return imported(record, judge, winner, text=_output(item))


def _named(item: Record, said: object) -> int | None:
    """Which of A and B was found better; 0 for a tie."""
    if not isinstance(said, list) or not said:
        raise InputError(f"prometheus_score is {said!r}; it is a list")
    if isinstance(said[0], list) and len(said) == 2:
        runs = list(zip(_grades(said[0]), _grades(said[1]), strict=False))
        better = next((1 if chosen > rejected else 2 for chosen, rejected in runs if chosen != rejected), 0 if runs else None)
        return exchanged(better) if choice(item, "chosen", {"A": 1, "B": 2, "tie": 1}) == 2 else better
    named = next((str(name).upper() for name in said if name is not None), "")
    return {"A": 1, "B": 2, "TIE": 0}.get(named)


def _output(item: Record) -> str:
    output = item.get("prometheus_output")
    return str(output[0]) if isinstance(output, list) and output else ""


def _grades(values: object) -> list[float]:
    if not isinstance(values, list) or any(isinstance(value, bool | str | list | dict) for value in values):
        raise InputError(f"prometheus_score is {values!r}; it is a list of grades")
    return [float(value) for value in values if value is not None]


def _grade(values: Sequence[object]) -> float:
    """The mean of the grades, whole numbers from 1 to 5, as numbers or their texts."""
    known = {str(grade): grade for grade in range(1, 6)}
    if not values or any(isinstance(value, bool) or str(value) not in known for value in values):
        raise InputError(f"the grades are {values!r}; each is a whole number from 1 to 5")
    return sum(known[str(value)] for value in values) / len(values)


def _correlate(labels: Sequence[Record], rows: Sequence[Record | None]) -> Scored:
    from scipy.stats import kendalltau, spearmanr

    predicted = [None if row is None else _predicted(row) for row in rows]
    kept = np.array([value is not None for value in predicted])
    grades = np.array([label["score"] for label in labels])
    scores = np.array([0.0 if value is None else value for value in predicted])

    def pearson(counts: np.ndarray) -> float | None:
        weights = counts * kept
        total = weights.sum()
        if not total:
            return None
        one, other = (values - values @ weights / total for values in (scores, grades))
        spread = math.sqrt((one * one) @ weights * ((other * other) @ weights))
        return float((one * other) @ weights / spread) if spread else None

    distinct = kept.sum() > 1 and len(set(scores[kept])) > 1 and len(set(grades[kept])) > 1
    extra = {
        "spearman": float(spearmanr(scores[kept], grades[kept]).statistic) if distinct else None,
        "kendall": float(kendalltau(scores[kept], grades[kept]).statistic) if distinct else None,
    }
    graders = _among_graders([label.get("grades", []) for label in labels])
    if graders is not None:
        extra["graders"] = graders
    return Scored(list(predicted), [1.0] * len(labels), None, extra, pearson)


def _among_graders(grades: Sequence[Sequence[object]]) -> float | None:
    """Pearson's correlation of one grader with the mean of the others, the mean over graders: what a judge could reach.

    None where the answers have not two grades each or more, as many everywhere.
    """
    if len({len(own) for own in grades}) != 1 or len(grades[0]) < 2:
        return None
    values = np.array([[float(str(grade)) for grade in own] for own in grades])
    found = []
    for grader in range(values.shape[1]):
        own, others = values[:, grader], np.delete(values, grader, axis=1).mean(axis=1)
        if not own.std() or not others.std():
            return None
        found.append(np.corrcoef(own, others)[0, 1])
    return float(np.mean(found))


def _predicted(row: Record) -> float | None:
    """The score of one answer: expected, where a distribution gives it, else the score itself."""
    for field in ("expected_scores", "scores"):
        values = row.get(field)
        if isinstance(values, list) and values and type(values[-1]) in (int, float):
            return float(values[-1])
    return None


def _by_kind(pairs: Protocol) -> Protocol:
    def score(labels: Sequence[Record], rows: Sequence[Record | None]) -> Scored:
        return pairs.score(labels, rows) if "winner" in labels[0] else _correlate(labels, rows)

    return dataclasses.replace(pairs, score=score)


_RULE = "pairs: the verdict names the preferred answer; graded answers: Pearson's correlation with the mean grade"

BENCHMARK = Benchmark(
    name="prometheus",
    title="Prometheus: answers graded by GPT-4 from 1 to 5, or pairs with a preference",
    source="arXiv 2310.08491, 2405.01535",
    reductions={"label": "the preference, or the mean of GPT-4's grades"},
    protocols={
        "one_order": _by_kind(rules.agreement("forward", f"{_RULE}; one order", rules.forward)),
        "both_orders": _by_kind(rules.agreement("both", f"{_RULE}; both orders, merged", rules.mean_of_both)),
    },
    read=read_prometheus,
    read_predictions=read_predictions,
)
