"""PandaLM's 999 pairs with three human annotators each (arXiv 2306.05087), from the original `testset-v1.json`."""

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.records import Record

FILE_NAME = "testset-v1.json"
ANNOTATORS = ("annotator1", "annotator2", "annotator3")
REDUCTIONS = ("majority", *ANNOTATORS)

_TEXTS = ("instruction", "input", "response1", "response2")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Judge records and their labels, side by side. `converted`: values that were no strings and became their JSON text."""

    records: list[Record]
    labels: list[Record]
    converted: int
    without_majority: int


def read_pandalm(path: Path, reduction: str = "majority") -> Benchmark:
    """Reads the original file, or the folder in which it lies.

    The question is the instruction, and after an empty line the input where there is one.

    Args:
      path: the file or its folder.
      reduction: how three annotators become one label: their `majority` (a tie where all three differ), or one of them.

    Raises:
      InputError: the file is not what the benchmark published; names the item.
    """
    file = path / FILE_NAME if path.is_dir() else path
    benchmark = Benchmark([], [], 0, 0)
    seen: dict[str, int] = {}
    for position, item in enumerate(_read_list(file)):
        try:
            record, label, converted = _convert(item, reduction)
        except InputError as error:
            raise InputError(f"{file}: item {position}: {error}") from error
        key = str(record["question_id"])
        if key in seen:
            raise InputError(f"{file}: item {position}: idx {key} stands already in item {seen[key]}; fetch the file again")
        seen[key] = position
        benchmark.records.append(record)
        benchmark.labels.append(label)
        split = reduction == "majority" and len(set(label["annotators"])) == len(ANNOTATORS)
        benchmark = dataclasses.replace(
            benchmark,
            converted=benchmark.converted + converted,
            without_majority=benchmark.without_majority + split,
        )
    return benchmark


def _read_list(file: Path) -> list[Any]:
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON ({error}); fetch the file again") from error
    if not isinstance(items, list):
        raise InputError(f"{file}: holds no JSON list; it should be PandaLM's {FILE_NAME}")
    return items


def _convert(item: object, reduction: str) -> tuple[Record, Record, int]:
    """The record and the label of one item, and the number of its texts that were no strings."""
    if not isinstance(item, dict):
        raise InputError("is no JSON object; fetch the file again")
    missing = [name for name in ("idx", "cmp_key", *_TEXTS, *ANNOTATORS) if name not in item]
    if missing:
        raise InputError(f"the field {missing[0]!r} is missing; fetch the file again")
    votes = [item[name] for name in ANNOTATORS]
    if any(type(vote) is not int or vote not in (0, 1, 2) for vote in votes):
        raise InputError(f"the annotators say {votes}; each says 0 (tie), 1 or 2")
    if type(item["idx"]) is not int:
        raise InputError(f"idx is {item['idx']!r}; it is a whole number")
    texts = {name: item[name] if isinstance(item[name], str) else json.dumps(item[name]) for name in _TEXTS}
    question = texts["instruction"] + (f"\n\n{texts['input']}" if texts["input"] else "")
    first_model, _, second_model = str(item["cmp_key"]).partition("_")
    record = {
        "question_id": item["idx"],
        "question_body": question,
        "answer1_body": texts["response1"],
        "answer2_body": texts["response2"],
        "answer1_model_id": first_model,
        "answer2_model_id": second_model,
        "motivation_app": item.get("motivation_app"),
    }
    label = {"question_id": item["idx"], "winner": _reduce(votes, reduction), "annotators": votes}
    return record, label, sum(not isinstance(item[name], str) for name in _TEXTS)


def _reduce(votes: list[int], reduction: str) -> int:
    if reduction != "majority":
        return votes[ANNOTATORS.index(reduction)]
    winner, count = Counter(votes).most_common(1)[0]
    return winner if count > 1 else 0
