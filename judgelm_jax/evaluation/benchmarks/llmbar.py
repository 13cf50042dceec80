"""LLMBar's 419 pairs with an objective winner (arXiv 2310.07641): Natural, and four adversarial subsets."""

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
    find_files,
    imported,
    text_id,
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.records.json_lines import Record

_TEXTS = ("input", "output_1", "output_2")
_WINNERS = {"1": 1, "2": 2}
_STATISTICS = "statistics.json of the repository, Natural/GPT-4/Vanilla"


def read_llmbar(path: Path, reduction: str = "label") -> Loaded:
    """Reads `dataset.json` of one subset, or of all subsets below a folder.

    `pair_id` is SUBSET/ITEM, with items counted from 0.

    Raises:
      InputError: a file is not what the benchmark published; names the item.
    """
    files = [path] if path.is_file() else [file for file in find_files(path, "dataset.json") if _subset(file)]
    if not files:
        raise InputError(
            f"{path}: there is no Natural/dataset.json or Adversarial/*/dataset.json below it; give the repository"
        )
    rows = [
        (place, {**item, "_subset": _subset(file) or file.parent.name, "_number": number})
        for file in files
        for number, (place, item) in enumerate(read_rows(file))
    ]
    return convert(path, rows, _pair)


def _subset(file: Path) -> str | None:
    """The name of a subset, `Natural` or `Adversarial/…`; None for a file of the repository's case studies."""
    folder = file.resolve().parent
    if folder.name == "Natural":
        return "Natural"
    return f"Adversarial/{folder.name}" if folder.parent.name == "Adversarial" else None


def _pair(_: int, item: Record) -> tuple[Record, Record, int]:
    (question, first, second), converted = texts_of(item, *_TEXTS)
    identity = {"question_id": text_id(question), "pair_id": f"{item['_subset']}/{item['_number']}"}
    record = {**identity, "question_body": question, "answer1_body": first, "answer2_body": second, "subset": item["_subset"]}
    return record, {**identity, "winner": choice(item, "label", {1: 1, 2: 2}), "subset": item["_subset"]}, converted


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """The published `result.json`: items as in `dataset.json`, with the `winner` of the game in each order, both in the item's
    own order. Items are found by their texts."""
    fields = ("question_body", "answer1_body", "answer2_body")
    records = {text_id(*(record[name] for name in fields)): record for record in loaded.records}
    judgments = []
    for file, (place, item) in ((path, row) for path in paths for row in read_rows(path)):
        texts, _ = texts_of(item, *_TEXTS)
        record = records.get(text_id(*texts))
        if record is None:
            raise InputError(f"{place}: these texts are no item of the benchmark; check that --data is the same subset")
        try:
            games = item["results"][0]
            winners = [games[f"swap = {swap}"]["winner"] for swap in (False, True)]
        except (KeyError, IndexError, TypeError) as error:
            raise InputError(f"{place}: has no results for 'swap = False' and 'swap = True'; fetch the file again") from error
        judgments.append(imported(record, file.parent.name, *(_WINNERS.get(str(winner)) for winner in winners)))
    return judgments


BENCHMARK = Benchmark(
    name="llmbar",
    title="LLMBar: 419 pairs with an objective winner",
    source="arXiv 2310.07641",
    reductions={"label": "the label of the file; there are no ties"},
    protocols={
        "average": rules.credited(
            "both", "the share of right verdicts, averaged over both orders; a tie is wrong", rules.mean_credit
        ),
        "both_right": rules.credited("both", "the verdicts of both orders are right", rules.both_right),
        "one_order": rules.agreement("forward", "the verdict of the order of the file is right; a tie is wrong", rules.forward),
    },
    read=read_llmbar,
    read_predictions=read_predictions,
    group="subset",
    baselines=(
        Baseline("GPT-4 (Vanilla)", "Natural, average of orders", 0.955, _STATISTICS),
        Baseline("GPT-4 (Vanilla)", "Natural, both right", 0.93, _STATISTICS),
    ),
)
