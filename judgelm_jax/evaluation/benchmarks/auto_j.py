"""Auto-J's pairwise test set: 58 scenarios of 24 pairs, labelled by people (arXiv 2310.05470)."""

from collections.abc import Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks import rules
from judgelm_jax.evaluation.benchmarks.benchmark import (
    Baseline,
    Benchmark,
    Loaded,
    choice,
    convert,
    exchanged,
    find_file,
    imported,
    require,
    text_id,
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.records.json_lines import Record

_TEXTS = ("prompt", "response 1", "response 2")
_WINNERS = {0: 1, 1: 2, 2: 0}
_README = "README of github.com/GAIR-NLP/auto-j"


def read_auto_j(path: Path, reduction: str = "label") -> Loaded:
    """Reads `testdata_pairwise.jsonl`; `pair_id` is the item's position, from 0.

    Raises:
      InputError: the file is not what the benchmark published; names the line.
    """
    file = find_file(path, "testdata_pairwise.jsonl")
    return convert(file, read_rows(file), _pair)


def _pair(position: int, item: Record) -> tuple[Record, Record, int]:
    require(item, "scenario")
    (prompt, first, second), converted = texts_of(item, *_TEXTS)
    identity = {"question_id": text_id(prompt), "pair_id": position}
    scenario = str(item["scenario"])
    record = {**identity, "question_body": prompt, "answer1_body": first, "answer2_body": second, "scenario": scenario}
    return record, {**identity, "winner": choice(item, "label", _WINNERS), "scenario": scenario}, converted


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """The published form: a line `{"output": 0|1|2}` an item, in the order of the items; a second file has the exchanged game,
    where 0 is still the first answer shown."""
    if len(paths) > 2:
        raise InputError(f"{paths[2]}: --predictions takes one file, or one of each order")
    games = []
    for path in paths:
        rows = read_rows(path)
        if len(rows) != len(loaded.records):
            raise InputError(f"{path}: {len(rows)} lines for {len(loaded.records)} items; give a line for every item")
        games.append([_output(place, item) for place, item in rows])
    if len(games) == 2:
        games[1] = [exchanged(winner) for winner in games[1]]
    return [imported(record, paths[0].stem, *winners) for record, *winners in zip(loaded.records, *games, strict=True)]


def _output(place: str, item: Record) -> int | None:
    if "output" not in item:
        raise InputError(f"{place}: the field 'output' is missing; it is 0 (first), 1 (second) or 2 (tie)")
    value = item["output"]
    return _WINNERS.get(value) if type(value) is int else None


BENCHMARK = Benchmark(
    name="auto_j",
    title="Auto-J pairwise test set: 58 scenarios of 24 pairs",
    source="arXiv 2310.05470",
    reductions={"label": "the label of the file"},
    protocols={
        "both_orders": rules.credited("both", "the verdicts of both orders name the label's winner", rules.both_right),
        "one_order": rules.agreement("forward", "the verdict of the order of the file names the label's winner", rules.forward),
    },
    read=read_auto_j,
    read_predictions=read_predictions,
    group="scenario",
    baselines=(
        Baseline("GPT-4", "agreement of both orders", 0.6228, _README),
        Baseline("GPT-4", "consistency", 0.8628, _README),
        Baseline("Auto-J 13B", "agreement of both orders", 0.5496, _README),
        Baseline("Auto-J 13B", "consistency", 0.8341, _README),
    ),
)
