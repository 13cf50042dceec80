"""Prometheus: answers graded from 1 to 5 by GPT-4, and pairs with a preference (arXiv 2310.08491, 2405.01535)."""

import dataclasses
import math
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
    find_file,
    require,
    text_id,
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.records import Record

_HEADINGS = (
    "###The instruction to evaluate:",
    "###Response to evaluate:",
    "###Reference Answer (Score 5):",
    "###Score Rubrics:",
    "###Feedback:",
)
_PAIR = ("orig_instruction", "orig_response_A", "orig_response_B", "orig_reference_answer", "orig_criteria")
_SINGLE = ("orig_instruction", "orig_response", "orig_reference_answer", "orig_criteria")


def read_prometheus(path: Path, reduction: str = "label") -> Loaded:
    """Reads pairs (`orig_preference`), graded answers (`orig_score`), or graded answers inside prompts (`gpt4_score`).

    Raises:
      InputError: the file is none of these; names the row.
    """
    file = find_file(path, "vicuna_eval.json", "mt_bench_eval.json", "*preference_bench*.json*", "*feedback_bench*.json*")
    rows = read_rows(file)
    first = rows[0][1] if rows else {}
    if "orig_preference" in first:
        return convert(file, rows, _pair)
    loaded = convert(file, rows, _prompt if "gpt4_score" in first else _graded)
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


def _prompt(_: int, item: Record) -> tuple[Record, Record, int]:
    require(item, "idx", "response_source", "gpt4_score")
    (text,), converted = texts_of(item, "instruction")
    instruction, response, reference, rubric = _sections(text)
    identity = {"question_id": str(item["idx"]), "pair_id": f"{item['idx']}/{item['response_source']}"}
    grades = item["gpt4_score"] if isinstance(item["gpt4_score"], list) else [item["gpt4_score"]]
    label = {**identity, "score": _grade(grades), "category": item.get("category")}
    record = _single(identity, instruction, response, reference, rubric)
    return record | {"answer1_model_id": item["response_source"], "category": item.get("category")}, label, converted


def _single(identity: Record, instruction: str, response: str, reference: str, rubric: str) -> Record:
    return {
        **identity,
        "question_body": instruction,
        "answer1_body": response,
        "reference": {"text": reference},
        "rubric": rubric,
    }


def _sections(text: str) -> tuple[str, str, str, str]:
    """Instruction, response, reference and rubric. A response may quote headings, so the last of those after it counts."""
    begin = text.find(_HEADINGS[0])
    places = [begin, text.find(_HEADINGS[1], max(begin, 0)), *(text.rfind(heading) for heading in _HEADINGS[2:])]
    if -1 in places or places != sorted(places):
        raise InputError("the instruction has not the sections of the benchmark in their order; fetch the file again")
    ends = [*places[1:], len(text)]
    parts = [text[place + len(heading) : end].strip() for place, end, heading in zip(places, ends, _HEADINGS, strict=True)]
    return parts[0], parts[1], parts[2], parts[3]


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
    return Scored(list(predicted), [1.0] * len(labels), None, extra, pearson)


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
)
