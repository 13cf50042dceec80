"""Makes judge records: from answer files of several models, or from the original files of a judge benchmark.

  judgelm-prepare --answers=model_a.jsonl --answers=model_b.jsonl --output=records.jsonl
  judgelm-prepare --answers=a.jsonl --answers=b.jsonl --answers=c.jsonl --pairs=all --output=pairs.jsonl
  judgelm-prepare --benchmark=pandalm --data=testset-v1.json --output=records.jsonl --labels=labels.jsonl

Answer files are joined by question_id, and every question must stand in all of them; records come in the order of the first
file. With --pairs=all each question gives a record for every two of its answers, with a pair_id (question 7, first and third
file: 7/1-3). Values that should be texts and are not become their JSON text and are counted.
"""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from judgelm_jax.commands.command_line import run
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks import pandalm
from judgelm_jax.records import (
    Record,
    answers_of,
    check_output,
    check_reference,
    dump_line,
    question_identity,
    read_jsonl,
    read_references,
    reference_of,
    write_atomically,
)

FLAGS = flags.FlagValues()
ANSWERS = flags.DEFINE_multi_string(
    "answers", [], "answers of one model; give the flag once for each model, in the order of the answers", flag_values=FLAGS
)
REFERENCES = flags.DEFINE_string(
    "references", None, "reference answers by question_id, instead of those in the answer files", flag_values=FLAGS
)
PAIRS = flags.DEFINE_enum(
    "pairs",
    None,
    ["all"],
    "all: a record for every two answers to a question; when not given, one record with all answers",
    flag_values=FLAGS,
)
BENCHMARK = flags.DEFINE_enum("benchmark", None, ["pandalm"], "the benchmark whose files are read", flag_values=FLAGS)
DATA = flags.DEFINE_string("data", None, "the benchmark's original file, or the folder it lies in", flag_values=FLAGS)
REDUCTION = flags.DEFINE_enum(
    "reduction", "majority", list(pandalm.REDUCTIONS), "how several annotators become one label", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "the judge records to write", flag_values=FLAGS, required=True)
LABELS = flags.DEFINE_string("labels", None, "the labels of the benchmark to write", flag_values=FLAGS)
JSON = flags.DEFINE_string("json", None, "also write the counts to this file, as JSON", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace outputs that exist", flag_values=FLAGS)


# What a joined record holds of each answer, in fields `answerK_…`.
_OF_ANSWER = ("body", "model_id", "metadata")


@dataclasses.dataclass(frozen=True)
class _Answers:
    """One answer file: its rows and their line numbers by question, and how many values became strings."""

    path: Path
    rows: dict[str, Record]
    lines: dict[str, int]
    converted: int


def main() -> None:
    if bool(ANSWERS.value) == bool(BENCHMARK.value):
        raise InputError("give either --answers (once for each model) or --benchmark with --data and --labels")
    if PAIRS.value and len(ANSWERS.value) < 2:
        raise InputError("--pairs=all pairs the answers of two models or more; give --answers once for each")
    if BENCHMARK.value and not (DATA.value and LABELS.value):
        raise InputError("--benchmark needs --data (its original files) and --labels (the file to write labels to)")
    if BENCHMARK.value and REFERENCES.value:
        raise InputError("--references goes with --answers; a benchmark brings its own")
    if ANSWERS.value and (DATA.value or LABELS.value):
        raise InputError("--data and --labels go with --benchmark; answer files have no labels")
    outputs = [Path(name) for name in (OUTPUT.value, LABELS.value, JSON.value) if name]
    inputs = [Path(name) for name in (*ANSWERS.value, REFERENCES.value, DATA.value) if name]
    for position, output in enumerate(outputs):
        check_output(output, OVERWRITE.value, [*inputs, *outputs[:position]])
    counts = _prepare_pandalm() if BENCHMARK.value else _prepare_answers()
    if JSON.value:
        with write_atomically(Path(JSON.value)) as file:
            file.write(json.dumps(counts, indent=2) + "\n")


def join_answers(paths: Sequence[Path], references: dict[str, str] | None) -> tuple[list[Record], int]:
    """Judge records of the answers of one or more models, in the order of the first file.

    Args:
      paths: one file a model, with `question_id`, `question_body`, `text`, optional `model`, `decoding_method`, `scores`
        (statistics of the generation) and `reference`. A file without `model` gives its own name as the model's.
      references: texts by question_id, instead of those in the files; None to take those.

    Returns the records, and the number of values that were no strings and became their JSON text.

    Raises:
      InputError: a question that is missing or double in a file, or whose text or reference differs between files.
    """
    files = [_read_answers(path) for path in paths]
    first = files[0]
    for other in files[1:]:
        for one, two in ((first, other), (other, first)):
            missing = next((key for key in one.rows if key not in two.rows), None)
            if missing is not None:
                raise InputError(
                    f"{one.path}:{one.lines[missing]}: question_id {missing!r} is not in {two.path}; every file needs an "
                    "answer to it"
                )
    records = [_join_question(key, files, references) for key in first.rows]
    return records, sum(file.converted for file in files)


def all_pairs(record: Record) -> list[Record]:
    """Of a record with N answers, the N (N - 1) / 2 records with two of them each, in the order of the answers.

    Each has the `pair_id` QUESTION/FIRST-SECOND, with the answers counted from 1. Pairs with one first answer follow each
    other.
    """
    count = len(answers_of(record))
    answered = {f"answer{number}_{field}" for number in range(1, count + 1) for field in _OF_ANSWER}
    common = {name: value for name, value in record.items() if name not in answered and name != "score"}
    pairs = []
    for chosen in itertools.combinations(range(1, count + 1), 2):
        pair = {"pair_id": f"{question_identity(record)}/{chosen[0]}-{chosen[1]}", **common}
        for place, number in enumerate(chosen, start=1):
            pair |= {f"answer{place}_{field}": record[f"answer{number}_{field}"] for field in _OF_ANSWER}
        if "score" in record:
            pair["score"] = [record["score"][number - 1] for number in chosen]
        pairs.append(pair)
    return pairs


def _join_question(key: str, files: Sequence[_Answers], references: dict[str, str] | None) -> Record:
    first = files[0]
    rows = [file.rows[key] for file in files]
    record: Record = {"question_id": rows[0]["question_id"], "question_body": rows[0]["question_body"]}
    given: Record | None = None
    for number, (file, row) in enumerate(zip(files, rows, strict=True), start=1):
        place = f"{file.path}:{file.lines[key]}"
        if row["question_body"] != record["question_body"]:
            raise InputError(
                f"{place}: question_body differs from that in {first.path}:{first.lines[key]}; all models must answer one "
                "question"
            )
        record[f"answer{number}_body"] = row["text"]
        record[f"answer{number}_model_id"] = row.get("model") or file.path.stem
        record[f"answer{number}_metadata"] = {"decoding_method": row["decoding_method"]} if row.get("decoding_method") else {}
        if reference_of(row) is not None:
            if given is not None and references is None and reference_of(row) != reference_of(given):
                raise InputError(f"{place}: reference differs from that in another file; keep one, or pass --references")
            given = given or row
    if any("scores" in row for row in rows):
        record["score"] = [row.get("scores") for row in rows]
    if references is not None and key in references:
        record["reference"] = {"text": references[key]}
    elif references is None and given is not None:
        record["reference"] = given["reference"]
    return record


def _read_answers(path: Path) -> _Answers:
    rows: dict[str, Record] = {}
    lines: dict[str, int] = {}
    converted = 0
    for line, row in read_jsonl(path):
        try:
            key = question_identity(row)
            if key in lines:
                raise InputError(f"question_id {key!r} stands already in line {lines[key]}; keep one answer to each question")
            for field in ("question_body", "text"):
                if field not in row:
                    raise InputError(f"the field {field!r} is missing; add it as a string")
                if not isinstance(row[field], str):
                    row[field] = json.dumps(row[field])
                    converted += 1
            check_reference(row)
        except InputError as error:
            raise InputError(f"{path}:{line}: {error}") from error
        rows[key], lines[key] = row, line
    return _Answers(path, rows, lines, converted)


def _prepare_answers() -> dict[str, Any]:
    paths = [Path(name) for name in ANSWERS.value]
    references = read_references(Path(REFERENCES.value)) if REFERENCES.value else None
    records, converted = join_answers(paths, references)
    each = len(paths)
    if PAIRS.value == "all":
        records, each = [pair for record in records for pair in all_pairs(record)], 2
    _write(Path(OUTPUT.value), records)
    with_reference = sum(reference_of(record) is not None for record in records)
    asked = {question_identity(record) for record in records}
    unused = sum(key not in asked for key in references or ())
    print(
        f"{len(records)} records with {each} answers each, {with_reference} of them with a reference, are in "
        f"{OUTPUT.value}."
        + ("" if each == 2 else " judgelm-judge --kind=pair takes records with two answers.")
        + (f" {converted} values were no strings and became their JSON text." if converted else "")
        + (f" {unused} references belong to no question." if unused else "")
    )
    return {
        "records": len(records),
        "answers": each,
        "with_reference": with_reference,
        "converted": converted,
        "unused_references": unused,
    }


def _prepare_pandalm() -> dict[str, Any]:
    benchmark = pandalm.read_pandalm(Path(DATA.value), REDUCTION.value)
    _write(Path(OUTPUT.value), benchmark.records)
    _write(Path(LABELS.value), benchmark.labels)
    first, second, ties = (sum(label["winner"] == winner for label in benchmark.labels) for winner in (1, 2, 0))
    print(
        f"{len(benchmark.records)} records are in {OUTPUT.value}, their labels ({REDUCTION.value} of three annotators: "
        f"{first} first, {second} second, {ties} ties, {benchmark.without_majority} without majority taken as ties) "
        f"in {LABELS.value}. "
        f"{benchmark.converted} values were no strings and became their JSON text."
    )
    return {
        "records": len(benchmark.records),
        "reduction": REDUCTION.value,
        "first": first,
        "second": second,
        "ties": ties,
        "without_majority": benchmark.without_majority,
        "converted": benchmark.converted,
    }


def _write(path: Path, rows: Iterable[Record]) -> None:
    with write_atomically(path) as file:
        for row in rows:
            file.write(dump_line(row) + "\n")


def entry() -> int:
    """The console command `judgelm-prepare`."""
    return run(main, FLAGS, "prepare")
