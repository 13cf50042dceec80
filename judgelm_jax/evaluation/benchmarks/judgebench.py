"""JudgeBench: pairs of which one answer is objectively right (arXiv 2410.12784)."""

from collections.abc import Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks import rules
from judgelm_jax.evaluation.benchmarks.benchmark import (
    Benchmark,
    Loaded,
    choice,
    convert,
    exchanged,
    find_files,
    imported,
    require,
    rows_of,
    text_id,
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.records.json_lines import Record

_TEXTS = ("question", "response_A", "response_B")
_WINNERS = {"A>B": 1, "B>A": 2}
_CATEGORIES = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "coding",
}


def read_judgebench(path: Path, reduction: str = "label") -> Loaded:
    """Reads one data file, or both (GPT-4o's answers and Claude's) below a folder.

    Raises:
      InputError: a file is not what the benchmark published; names the line.
    """
    pattern = "dataset=judgebench,response_model=*.jsonl"
    files = [file for file in find_files(path, pattern) if path.is_file() or "judge_name=" not in file.name]
    return convert(path, [row for file in files for row in read_rows(file)], _pair)


def _pair(_: int, item: Record) -> tuple[Record, Record, int]:
    require(item, "pair_id", "source", "response_model")
    (question, first, second), converted = texts_of(item, *_TEXTS)
    source = str(item["source"])
    category = next((name for prefix, name in _CATEGORIES.items() if source.startswith(prefix)), source)
    identity = {"question_id": text_id(question), "pair_id": str(item["pair_id"])}
    record = {
        **identity,
        "question_body": question,
        "answer1_body": first,
        "answer2_body": second,
        "source": source,
        "response_model": item["response_model"],
    }
    group = f"{item['response_model']}: {category}"
    return record, {**identity, "winner": choice(item, "label", _WINNERS), "group": group}, converted


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """The published form: the data's fields and `judgments`: one or two, each with a `decision` in the order shown, or null.

    The judge of `pred_model_id` is the model where the judgment names it, else the way of judging (`judge_name`).
    """
    records = {record["pair_id"]: record for record in loaded.records}
    judgments = []
    for place, item in rows_of(paths):
        record, games = records.get(str(item.get("pair_id"))), item.get("judgments")
        if record is None or not isinstance(games, list) or len(games) not in (1, 2):
            raise InputError(f"{place}: its pair_id is none of the benchmark, or it has not one or two judgments")
        decisions = [game.get("decision") if isinstance(game, dict) else None for game in games]
        shown = [_decision(decision) for decision in decisions]
        winners = [shown[0], *(exchanged(winner) for winner in shown[1:])]
        said = games[0].get("judgment") if isinstance(games[0], dict) else None
        judge, text = (said.get("judge_model"), said.get("response")) if isinstance(said, dict) else (None, None)
        named = str(judge or item.get("judge_name", ""))
        judgments.append(imported(record, named, *winners, text=text if isinstance(text, str) else ""))
    return judgments


def _decision(decision: object) -> int | None:
    return {**_WINNERS, "A=B": 0}.get(decision) if isinstance(decision, str) else None


BENCHMARK = Benchmark(
    name="judgebench",
    title="JudgeBench: 350 pairs of GPT-4o, 270 of Claude 3.5 Sonnet, one answer of each right",
    source="arXiv 2410.12784",
    reductions={"label": "the answer that is objectively right; there are no ties"},
    protocols={
        "both_orders": rules.credited(
            "both", "each order adds 1 when right and takes 1 when wrong; right where the sum is positive", rules.positive_sum
        ),
        "one_order": rules.agreement("forward", "the verdict of the order of the file is right", rules.forward),
    },
    read=read_judgebench,
    read_predictions=read_predictions,
    group="group",
)
