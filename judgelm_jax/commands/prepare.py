"""Makes judge records: from answer files of several models, or from the original files of a judge benchmark.

  judgelm-prepare --answers=model_a.jsonl --answers=model_b.jsonl --output=records.jsonl
  judgelm-prepare --answers=a.jsonl --answers=b.jsonl --answers=c.jsonl --pairs=all --output=pairs.jsonl
  judgelm-prepare --answers=vicuna.jsonl --answers=claude.jsonl --questions=question.jsonl --output=records.jsonl
  judgelm-prepare --answers=a.csv --answers=b.csv --map=question_body=prompt --map=text=reply --output=records.jsonl
  judgelm-prepare --benchmark=pandalm --data=testset-v1.json --output=records.jsonl --labels=labels.jsonl

Answer files are our own, or MT-Bench's, AlpacaEval's, Arena-Hard's or LLMBar's, as JSON Lines, a JSON list, CSV or Parquet, the
text ones also as .gz. They are joined by question_id, and records come in the order of the first model. With --pairs each
question gives a record for each pair that is chosen, with a pair_id (question 7, first and third model: 7/1-3). Values that
should be texts and are not become their JSON text and are counted.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.catalog import BENCHMARKS
from judgelm_jax.evaluation.formats import mt_bench
from judgelm_jax.evaluation.formats.answers import FORMATS, Reading, read_answers, read_references
from judgelm_jax.evaluation.formats.joining import join_answers, pairs_of
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.prompts import prompts
from judgelm_jax.records.json_lines import Record, dump_line
from judgelm_jax.records.output_files import check_output, write_atomically
from judgelm_jax.records.records import answers_of, question_identity, reference_of

FLAGS = flags.FlagValues()
ANSWERS = flags.DEFINE_multi_string(
    "answers", [], "answers of one model; give the flag once for each file, in the order of the answers", flag_values=FLAGS
)
FORMAT = flags.DEFINE_enum("format", "auto", list(FORMATS), "of the answer files; auto: as their fields say", flag_values=FLAGS)
MAP = flags.DEFINE_multi_string(
    "map", [], "FIELD=COLUMN: what a field of ours (question_id, question_body, text, model, …) is called", flag_values=FLAGS
)
QUESTIONS = flags.DEFINE_string("questions", None, "question.jsonl of MT-Bench, whose answers do not say it", flag_values=FLAGS)
TURNS = flags.DEFINE_integer(
    "turns", None, "cut conversations after this many turns; all when not given", lower_bound=1, flag_values=FLAGS
)
JOIN = flags.DEFINE_enum(
    "join", "all", ["all", "inner"], "all: every model answers every question; inner: leave out and count others",
    flag_values=FLAGS,
)  # fmt: skip
REFERENCES = flags.DEFINE_string(
    "references", None, "reference answers by question_id, instead of those in the answer files", flag_values=FLAGS
)
PAIRS = flags.DEFINE_string(
    "pairs",
    None,
    "all: a record for every two answers to a question; baseline:NAME: one model against each other; sample:K: K pairs a "
    "question, drawn by its id. When not given, one record with all answers",
    flag_values=FLAGS,
)
BENCHMARK = flags.DEFINE_enum("benchmark", None, list(BENCHMARKS), "the benchmark whose files are read", flag_values=FLAGS)
DATA = flags.DEFINE_string("data", None, "the benchmark's original file, or the folder it lies in", flag_values=FLAGS)
REDUCTION = flags.DEFINE_string(
    "reduction", None, "how several annotators become one label; the benchmark's first when not given", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "the judge records to write", flag_values=FLAGS, required=True)
LABELS = flags.DEFINE_string("labels", None, "the labels of the benchmark to write", flag_values=FLAGS)
JSON = flags.DEFINE_string("json", None, "also write the counts to this file, as JSON", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace outputs that exist", flag_values=FLAGS)

_OF_ANSWERS = (REFERENCES, QUESTIONS, MAP, PAIRS, TURNS)  # flags that say nothing of a benchmark


def main() -> None:
    if bool(ANSWERS.value) == bool(BENCHMARK.value):
        raise InputError("give either --answers (once for each model) or --benchmark with --data and --labels")
    stray = next((flag.name for flag in _OF_ANSWERS if BENCHMARK.value and flag.value), None)
    if stray:
        raise InputError(f"--{stray} goes with --answers (of two models or more); a benchmark brings its own")
    if BENCHMARK.value and not (DATA.value and LABELS.value):
        raise InputError("--benchmark needs --data (its original files) and --labels (the file to write labels to)")
    if ANSWERS.value and (DATA.value or LABELS.value):
        raise InputError("--data and --labels go with --benchmark; answer files have no labels")
    _check_pairs(PAIRS.value)
    outputs = [Path(name) for name in (OUTPUT.value, LABELS.value) if name]
    inputs = [Path(name) for name in (*ANSWERS.value, REFERENCES.value, QUESTIONS.value, DATA.value) if name]
    for position, output in enumerate(outputs):
        check_output(output, OVERWRITE.value, [*inputs, *outputs[:position]])
    check_json(JSON.value, OVERWRITE.value, [*inputs, *outputs])
    counts = _prepare_benchmark() if BENCHMARK.value else _prepare_answers()
    write_json(JSON.value, counts)


def _check_pairs(value: str | None) -> None:
    kind, _, detail = (value or "all").partition(":")
    wrong = detail if kind == "all" else not detail if kind == "baseline" else not (detail.isdecimal() and int(detail))
    if wrong or kind not in ("all", "baseline", "sample"):
        raise InputError(f"--pairs={value}: it is all, baseline:NAME or sample:K with a whole number K above 0")


def _columns() -> dict[str, str]:
    pairs = [item.partition("=") for item in MAP.value]
    wrong = next((item for item, (field, _, column) in zip(MAP.value, pairs, strict=True) if not (field and column)), None)
    if wrong is not None:
        raise InputError(f"--map={wrong}: it is FIELD=COLUMN, as text=reply")
    return {field: column for field, _, column in pairs}


def _prepare_answers() -> dict[str, Any]:
    files = [Path(name).resolve() for name in ANSWERS.value]
    if twice := next((name for name, file in zip(ANSWERS.value, files, strict=True) if files.count(file) > 1), None):
        raise InputError(f"{twice}: is given twice; give the answers of each model once")
    questions = mt_bench.questions(read_rows(Path(QUESTIONS.value))) if QUESTIONS.value else {}
    reading = Reading(FORMAT.value, _columns(), questions, TURNS.value)
    groups = [group for name in ANSWERS.value for group in read_answers(Path(name), reading)]
    names = [group.model for group in groups]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(
            f"two of the --answers are of a model {twice!r}; rename one, in its field 'model' or, where it has none, its file"
        )
    if PAIRS.value and len(groups) < 2:
        raise InputError(f"--pairs={PAIRS.value} pairs the answers of two models or more; give --answers once for each")
    references = read_references(Path(REFERENCES.value), TURNS.value) if REFERENCES.value else None
    joined, left_out = join_answers(groups, references, JOIN.value == "inner")
    records, each = joined, len(groups)
    if PAIRS.value:
        records, each = [pair for record in joined for pair in pairs_of(record, PAIRS.value)], 2
    characters = sum(_characters(record) for record in records) if each == 2 else None
    if characters is not None:
        print(
            f"{len(joined)} questions and {len(groups)} models give {len(records)} pairs: as many prompts an order, "
            f"{characters:,} characters in all."
        )
    _write(Path(OUTPUT.value), records)
    with_reference = sum(reference_of(record) is not None for record in records)
    asked = {question_identity(record) for record in joined}
    unused = sum(key not in asked for key in references or ())
    converted, nulls = (sum(getattr(group, name) for group in groups) for name in ("converted", "nulls"))
    print(
        f"{len(records)} records with {each} answers each, {with_reference} of them with a reference, are in "
        f"{OUTPUT.value}."
        + {1: " judgelm-judge --kind=single grades them.", 2: ""}.get(each, " judgelm-judge --kind=multi ranks them.")
        + (f" {left_out} questions that not all models answered are left out." if left_out else "")
        + (f" {converted} values were no strings and became their JSON text." if converted else "")
        + (f" {nulls} answers were null and are empty." if nulls else "")
        + (f" {unused} references belong to no question." if unused else "")
    )
    return {
        "records": len(records),
        "questions": len(joined),
        "models": names,
        "answers": each,
        "prompt_characters": characters,
        "with_reference": with_reference,
        "left_out": left_out,
        "converted": converted,
        "null_answers": nulls,
        "unused_references": unused,
    }


def _characters(record: Record) -> int:
    """Of the prompt of a pair, in one order."""
    return len(prompts.render("pair", record["question_body"], answers_of(record), reference_of(record)))


def _prepare_benchmark() -> dict[str, Any]:
    benchmark = BENCHMARKS[BENCHMARK.value]
    if benchmark.add_answers is not None:
        raise InputError(f"{benchmark.name} has questions only; judgelm-benchmark takes the answers to judge with --answers")
    reduction = REDUCTION.value or next(iter(benchmark.reductions))
    if reduction not in benchmark.reductions:
        raise InputError(f"--reduction={reduction}: {benchmark.name} knows {', '.join(benchmark.reductions)}")
    loaded = benchmark.read(Path(DATA.value), reduction)
    _write(Path(OUTPUT.value), loaded.records)
    _write(Path(LABELS.value), loaded.labels)
    counts: dict[str, Any] = {"records": len(loaded.records), "reduction": reduction}
    if loaded.kind == "pair":
        winners = Counter(label["winner"] for label in loaded.labels)
        counts |= {"first": winners[1], "second": winners[2], "ties": winners[0], "without_label": winners[None]}
    counts |= loaded.counts
    outcomes = "".join(f", {counts[name]} {name}" for name in ("first", "second", "ties") if name in counts)
    print(
        f"{len(loaded.records)} records of the kind {loaded.kind} are in {OUTPUT.value}, their labels "
        f"({benchmark.reductions[reduction]}{outcomes}) in {LABELS.value}. "
        f"{loaded.counts['converted']} values were no strings and became their JSON text."
    )
    return counts


def _write(path: Path, rows: Iterable[Record]) -> None:
    with write_atomically(path) as file:
        for row in rows:
            file.write(dump_line(row) + "\n")


def entry() -> int:
    """The console command `judgelm-prepare`."""
    return run(main, FLAGS, "prepare")
