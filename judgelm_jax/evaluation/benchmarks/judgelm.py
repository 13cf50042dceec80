"""JudgeLM's validation set: 5,000 pairs with GPT-4's scores as labels, without and with reference (arXiv 2310.17631)."""

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
    texts_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.evaluation.joining import read_labels
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import identity, question_identity, read_references

_RECORDS = "judgelm_val_5k.jsonl"
_LABELS = {
    "without_reference": "judgelm_val_5k_gpt4.jsonl",
    "with_reference": "judgelm_val_5k_gpt4_with_reference.jsonl",
}
_REFERENCES = "judgelm_val_5k_references.jsonl"
_TEXTS = ("question_body", "answer1_body", "answer2_body")


def read_judgelm(path: Path, reduction: str = "without_reference") -> Loaded:
    """Reads the records and the label file that the reduction names; with_reference puts the references into the records.

    Records whose teacher failed (a score of -1) have no winner.

    Raises:
      InputError: a file is missing or is not what was published; names the line.
    """
    folder = find_file(path, _RECORDS).parent
    records, label_file = folder / _RECORDS, folder / _LABELS[reduction]
    for file in (records, label_file):
        if not file.is_file():
            raise InputError(f"{file}: no such file; the four files of the validation set lie in one folder")
    labels = read_labels(label_file, "tolerant")
    references = {}
    if reduction == "with_reference":
        references = read_references(folder / _REFERENCES)

    def pair(_: int, item: Record) -> tuple[Record, Record, int]:
        texts, converted = texts_of(item, *_TEXTS)
        record: Record = item | dict(zip(_TEXTS, texts, strict=True))
        key = identity(record)
        if key not in labels:
            raise InputError(f"there is no label for the id {key} in {label_file}; fetch both files again")
        if references:
            if question_identity(record) not in references:
                raise InputError(f"there is no reference for it in {folder / _REFERENCES}; fetch both files again")
            record["reference"] = {"text": references[question_identity(record)]}
        ids: Record = {name: record[name] for name in ("question_id", "pair_id") if name in record}
        return record, {**ids, "winner": labels[key][0].winner}, converted

    return convert(records, read_rows(records), pair)


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """Judgments in the form of the label files (`text`, `score` or `winner`), such as GPT-4's with references.

    What the published scripts write has `pred_text` and is read as ours.
    """
    records = {identity(record): record for record in loaded.records}
    judgments = []
    for path in paths:
        for key, (label, _) in read_labels(path, "tolerant").items():
            if key not in records:
                raise InputError(f"{path}: the id {key!r} is none of the benchmark; check that --data is the same set")
            judgments.append(imported(records[key], path.stem, label.winner))
    return judgments


def _published() -> tuple[Baseline, ...]:
    table = {  # agreement, F1, consistency; without and with reference
        "JudgeLM-7B": ((0.8111, 0.7221, 0.8357), (0.8408, 0.7828, 0.8446)),
        "JudgeLM-13B": ((0.8433, 0.7617, 0.8501), (0.8547, 0.7977, 0.8723)),
        "JudgeLM-33B": ((0.8903, 0.8264, 0.9136), (0.8932, 0.8498, 0.9237)),
    }
    return tuple(
        Baseline(judge, f"{metric} {how}", value, "README of github.com/baaivision/JudgeLM")
        for judge, rows in table.items()
        for how, row in zip(("without reference", "with reference"), rows, strict=True)
        for metric, value in zip(("agreement", "f1", "consistency"), row, strict=True)
    )


BENCHMARK = Benchmark(
    name="judgelm",
    title="JudgeLM validation set: 5,000 pairs scored by GPT-4",
    source="arXiv 2310.17631",
    reductions={
        "without_reference": "the higher of GPT-4's two scores, given without a reference",
        "with_reference": "the higher of GPT-4's two scores, given with a reference, which the judge sees, too",
    },
    protocols={
        "one_order": rules.agreement("forward", "the verdict of the order of the file names the label's winner", rules.forward),
        "both_orders": rules.agreement("both", "the merged verdict of both orders names the winner", rules.mean_of_both),
    },
    read=read_judgelm,
    read_predictions=read_predictions,
    baselines=_published(),
)
