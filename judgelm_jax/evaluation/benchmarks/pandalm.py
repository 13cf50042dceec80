"""PandaLM's 999 pairs with three human annotators each (arXiv 2306.05087), from the original `testset-v1.json`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks import rules
from judgelm_jax.evaluation.benchmarks.benchmark import (
    Baseline,
    Benchmark,
    Loaded,
    convert,
    find_file,
    imported,
    require,
    rows_of,
    text_id,
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.records.json_lines import Record

ANNOTATORS = ("annotator1", "annotator2", "annotator3")

_TEXTS = ("instruction", "input", "response1", "response2")
_WINNERS = {"1": 1, "2": 2, "0": 0, "tie": 0}


def read_pandalm(path: Path, reduction: str = "majority") -> Loaded:
    """Reads the original file, or finds it below a folder.

    The question is the instruction, and after an empty line the input where there is one. Pairs of one question share the
    `question_id`; `pair_id` is `idx`.

    Raises:
      InputError: the file is not what the benchmark published; names the item.
    """
    file = find_file(path, "testset-v1.json")
    loaded = convert(file, read_rows(file), lambda _, item: _pair(item, reduction))
    split = sum(len(set(label["annotators"])) == len(ANNOTATORS) for label in loaded.labels)
    loaded.counts["without_majority"] = split if reduction == "majority" else 0
    return loaded


def _pair(item: Record, reduction: str) -> tuple[Record, Record, int]:
    require(item, "idx", "cmp_key", *_TEXTS, *ANNOTATORS)
    votes = [item[name] for name in ANNOTATORS]
    if any(type(vote) is not int or vote not in (0, 1, 2) for vote in votes):
        raise InputError(f"the annotators say {votes}; each says 0 (tie), 1 or 2")
    if type(item["idx"]) is not int:
        raise InputError(f"idx is {item['idx']!r}; it is a whole number")
    (instruction, context, first, second), converted = texts_of(item, *_TEXTS)
    first_model, _, second_model = str(item["cmp_key"]).partition("_")
    identity = {"question_id": text_id(instruction, context), "pair_id": item["idx"]}
    record = {
        **identity,
        "question_body": instruction + (f"\n\n{context}" if context else ""),
        "answer1_body": first,
        "answer2_body": second,
        "answer1_model_id": first_model,
        "answer2_model_id": second_model,
        "motivation_app": item.get("motivation_app"),
    }
    return record, {**identity, "winner": _reduce(votes, reduction), "annotators": votes}, converted


def _reduce(votes: list[int], reduction: str) -> int:
    if reduction != "majority":
        return votes[ANNOTATORS.index(reduction)]
    winner, count = Counter(votes).most_common(1)[0]
    return winner if count > 1 else 0


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """The published form: a list of `idx`, `JUDGE_result` (1, 2, 0 or Tie) and `JUDGE_reason`. Anything else did not parse."""
    records = {record["pair_id"]: record for record in loaded.records}
    judgments = []
    for place, item in rows_of(paths):
        field = next((name for name in item if name.endswith("_result")), None)
        if field is None or type(item.get("idx")) is not int or item["idx"] not in records:
            raise InputError(f"{place}: it has no field …_result, or its idx is none of the benchmark; check the file")
        judge = field.removesuffix("_result")
        winner = _WINNERS.get(str(item[field]).strip().lower())
        reason = item.get(f"{judge}_reason")
        judgments.append(imported(records[item["idx"]], judge, winner, text=reason if isinstance(reason, str) else ""))
    return judgments


BENCHMARK = Benchmark(
    name="pandalm",
    title="PandaLM test set: 999 pairs, 170 questions, three annotators",
    source="arXiv 2306.05087",
    reductions={
        "majority": "the majority of three annotators; a tie where all three differ",
        **{name: f"{name} alone" for name in ANNOTATORS},
    },
    protocols={
        "one_order": rules.agreement("forward", "the verdict of the order of the file names the label's winner", rules.forward),
        "both_orders": rules.agreement(
            "both",
            "the verdict of both orders, a tie where they name different winners, names the label's",
            rules.conflict_is_tie,
        ),
    },
    read=read_pandalm,
    read_predictions=read_predictions,
    baselines=(
        Baseline("gpt-3.5-turbo", "agreement", 0.6977, "the published gpt-3.5-turbo-testset-v1.json, one order"),
        Baseline("PandaLM-7B", "agreement", 0.6677, "the published pandalm-7b-testset-v1.json, one order"),
        Baseline("PandaLM-7B", "f1", 0.5743, "the published pandalm-7b-testset-v1.json, one order"),
    ),
)
