"""RewardBench: chosen against rejected in 23 subsets of four sections (arXiv 2403.13787)."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks import rules
from judgelm_jax.evaluation.benchmarks.benchmark import (
    Benchmark,
    Loaded,
    Protocol,
    Scored,
    columns_of,
    convert,
    distinct,
    find_file,
    imported,
    require,
    text_id,
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.records.json_lines import Record

_TEXTS = ("prompt", "chosen", "rejected")
SECTIONS = {
    "Chat": ("alpacaeval-easy", "alpacaeval-length", "alpacaeval-hard", "mt-bench-easy", "mt-bench-med"),
    "Chat Hard": (
        "mt-bench-hard",
        "llmbar-natural",
        "llmbar-adver-neighbor",
        "llmbar-adver-GPTInst",
        "llmbar-adver-GPTOut",
        "llmbar-adver-manual",
    ),
    "Safety": (
        "refusals-dangerous",
        "refusals-offensive",
        "xstest-should-refuse",
        "xstest-should-respond",
        "donotanswer",
    ),
    "Reasoning": ("math-prm", "hep-cpp", "hep-go", "hep-java", "hep-js", "hep-python", "hep-rust"),
}
_SECTION_OF = {subset: section for section, subsets in SECTIONS.items() for subset in subsets}
_MATH, _MATH_COUNT = "math-prm", 984  # counts as much as the six subsets of code together


def read_rewardbench(path: Path, reduction: str = "chosen") -> Loaded:
    """Reads records of `prompt`, `chosen`, `rejected`, `subset`, `id`.

    The chosen answer stands first or second as its id decides, so that a judge with a favourite position gains nothing.

    Raises:
      InputError: the file is not what the benchmark published; names the row.
    """
    file = find_file(path, "filtered*.parquet", "filtered*.json*", "reward-bench*.json*")
    seen: Counter[str] = Counter()
    return convert(file, read_rows(file), lambda _, item: _pair(item, seen))


def _pair(item: Record, seen: Counter[str]) -> tuple[Record, Record, int]:
    require(item, "subset", "id")
    if not isinstance(item["subset"], str) or item["subset"] not in _SECTION_OF:
        raise InputError(f"the subset {item['subset']!r} is none of the benchmark's 23; check the file")
    (prompt, chosen, rejected), converted = texts_of(item, *_TEXTS)
    identity = {"question_id": text_id(prompt), "pair_id": distinct(f"{item['subset']}/{item['id']}", seen)}
    winner = 1 + int(text_id(identity["pair_id"]), 16) % 2
    first, second = (chosen, rejected) if winner == 1 else (rejected, chosen)
    record = {**identity, "question_body": prompt, "answer1_body": first, "answer2_body": second, "subset": item["subset"]}
    return record, {**identity, "winner": winner, "subset": item["subset"]}, converted


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """The published results of a judge: one object of columns, or rows, with `subset`, `id` and `results`.

    A result is 1 where the chosen answer won, 0 where the rejected one did, 0.5 for a tie (that is also how the benchmark's
    program writes a verdict it could not parse).
    """
    labels = {label["pair_id"]: (record, label) for record, label in zip(loaded.records, loaded.labels, strict=True)}
    judgments = []
    seen: Counter[str] = Counter()
    for place, item in columns_of(paths, "subset", "id", "results"):
        record, label = labels.get(distinct(f"{item.get('subset')}/{item.get('id')}", seen), (None, None))
        if record is None or label is None:
            raise InputError(f"{place}: its subset and id are none of the benchmark; check that both files are of one version")
        result = item.get("results")
        if isinstance(result, bool | int | float) and result in (0, 0.5, 1):
            winner = 0 if result == 0.5 else label["winner"] if result else 3 - label["winner"]
        else:
            raise InputError(f"{place}: results is {result!r}; it is 1 (chosen), 0 (rejected) or 0.5 (a tie)")
        judgments.append(imported(record, paths[0].stem, winner))
    return judgments


def _sectioned(protocol: Protocol) -> Protocol:
    """The mean of the sections; a section is the mean of its subsets by their number of items, math-prm by 984."""

    def score(labels: Sequence[Record], rows: Sequence[Record | None]) -> Scored:
        scored = protocol.score(labels, rows)
        subsets = [label["subset"] for label in labels]
        sizes = {**Counter(subsets), **({_MATH: _MATH_COUNT} if _MATH in subsets else {})}
        kept = [(subset, value) for subset, value in zip(subsets, scored.credits, strict=True) if value is not None]
        judged = Counter(subset for subset, _ in kept)
        section_sizes: Counter[str] = Counter()
        for subset in judged:
            section_sizes[_SECTION_OF[subset]] += sizes[subset]
        # Of one item, so that all together weigh 1.
        weight = {
            subset: sizes[subset] / section_sizes[_SECTION_OF[subset]] / len(section_sizes) / judged[subset]
            for subset in judged
        }
        sections = dict.fromkeys(section_sizes, 0.0)
        for subset, value in kept:
            sections[_SECTION_OF[subset]] += value * weight[subset] * len(section_sizes)
        weights = [weight.get(subset, 0.0) for subset in subsets]
        return dataclasses.replace(scored, weights=weights, extra={"sections": sections})

    return dataclasses.replace(protocol, score=score)


BENCHMARK = Benchmark(
    name="rewardbench",
    title="RewardBench: chosen against rejected in 23 subsets of four sections",
    source="arXiv 2403.13787",
    reductions={"chosen": "the chosen answer wins"},
    protocols={
        "one_order": _sectioned(
            rules.agreement(
                "forward",
                "mean of the sections, each weighted by its subsets' items (math-prm 984); one order, chosen first or second "
                "by its id; a tie counts half",
                rules.forward,
                rules.half_for_tie(rules.forward),
            )
        ),
        "both_orders": _sectioned(
            rules.agreement(
                "both",
                "as one_order, with the merged verdict of both orders",
                rules.mean_of_both,
                rules.half_for_tie(rules.mean_of_both),
            )
        ),
    },
    read=read_rewardbench,
    read_predictions=read_predictions,
    group="subset",
)
