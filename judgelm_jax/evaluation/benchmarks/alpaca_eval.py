"""AlpacaEval's annotations: which of two outputs an annotator preferred, and the win rate that follows (Li et al. 2023)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks import rules
from judgelm_jax.evaluation.benchmarks.benchmark import (
    Baseline,
    Benchmark,
    Loaded,
    Protocol,
    Scored,
    convert,
    exchanged,
    find_file,
    imported,
    rows_of,
    text_id,
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.evaluation.joining import Judged
from judgelm_jax.records.json_lines import Record

_TEXTS = ("instruction", "output_1", "output_2")
_WIN = {1: 0.0, 0: 0.5, 2: 1.0}  # of the second output


def read_alpaca_eval(path: Path, reduction: str = "annotator") -> Loaded:
    """Reads an `annotations.json`; `pair_id` is the item's position, from 0.

    A preference is from 1 (first) to 2 (second) and may lie between; 0 and 1.5 are ties; null is no label.

    Raises:
      InputError: the file is not what the benchmark published; names the item.
    """
    file = find_file(path, "annotations.json")
    return convert(file, read_rows(file), _pair)


def _pair(position: int, item: Record) -> tuple[Record, Record, int]:
    (instruction, first, second), converted = texts_of(item, *_TEXTS)
    preference = preference_of(item)
    identity = {"question_id": text_id(instruction), "pair_id": position}
    record = {
        **identity,
        "question_body": instruction,
        "answer1_body": first,
        "answer2_body": second,
        "answer1_model_id": item.get("generator_1"),
        "answer2_model_id": item.get("generator_2"),
        "dataset": item.get("dataset"),
    }
    label = {**identity, "winner": winner_of(preference), "preference": preference, "dataset": item.get("dataset")}
    return record, label, converted


def preference_of(item: Record) -> float | None:
    """The preference from 1 to 2, a tie as 1.5, None where the annotator failed. Raises an `InputError` without place."""
    value = item.get("preference")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (value == 0 or 1 <= value <= 2):
        raise InputError(f"preference is {value!r}; it is a number from 1 to 2, 0 for a tie, or null")
    return 1.5 if value == 0 else float(value)


def winner_of(preference: float | None) -> int | None:
    """The output that a preference names; 0 for a tie."""
    return None if preference is None else 0 if preference == 1.5 else 1 if preference < 1.5 else 2


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """The annotations of another annotator for the same outputs, in either order."""
    fields = ("question_body", "answer1_body", "answer2_body")
    records = {text_id(*(record[name] for name in fields)): record for record in loaded.records}
    judgments = []
    for place, item in rows_of(paths):
        try:
            (instruction, first, second), _ = texts_of(item, *_TEXTS)
            winner = winner_of(preference_of(item))
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        record = records.get(text_id(instruction, first, second))
        if record is None:
            record = records.get(text_id(instruction, second, first))
            winner = exchanged(winner)
        if record is None:
            raise InputError(f"{place}: these texts are no item of --data; check that both files are of one model")
        judgments.append(imported(record, str(item.get("annotator", "")), winner))
    return judgments


def _with_win_rates(protocol: Protocol) -> Protocol:
    """Adds the win rate of the second output by the annotator and by the judge, over the items that each decided."""

    def score(labels: Sequence[Record], rows: Sequence[Record | None]) -> Scored:
        scored = protocol.score(labels, rows)
        preferences = [label["preference"] - 1 for label in labels if label["preference"] is not None]
        named = [judged.winner for judged in scored.decided or () if isinstance(judged, Judged)]
        wins = [_WIN[winner] for winner in named if winner is not None]
        rates = {
            "win_rate_annotator": sum(preferences) / len(preferences) if preferences else None,
            "win_rate_judge": sum(wins) / len(wins) if wins else None,
        }
        return dataclasses.replace(scored, extra=rates)

    return dataclasses.replace(protocol, score=score)


BENCHMARK = Benchmark(
    name="alpaca_eval",
    title="AlpacaEval annotations: which of two outputs an annotator preferred",
    source="github.com/tatsu-lab/alpaca_eval",
    reductions={"annotator": "the annotator's preference; 1.5 and 0 are ties, null is no label"},
    protocols={
        "one_order": _with_win_rates(
            rules.agreement("forward", "the verdict of the order of the file names the preferred output", rules.forward)
        ),
        "both_orders": _with_win_rates(
            rules.agreement("both", "the merged verdict of both orders names the preferred output", rules.mean_of_both)
        ),
    },
    read=read_alpaca_eval,
    read_predictions=read_predictions,
    group="dataset",
    baselines=(
        Baseline(
            "alpaca_eval_gpt4",
            "win_rate_annotator of alpaca-7b",
            0.26459627329192543,
            "alpaca_eval_gpt4_leaderboard.csv of alpaca_eval 0.6.6",
        ),
    ),
)
