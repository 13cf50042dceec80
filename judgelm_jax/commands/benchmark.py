"""Scores a judge on a judge benchmark, from the benchmark's original files, by the benchmark's own rule.

  judgelm-benchmark --name=pandalm --data=PandaLM --model=judge --output=runs/pandalm
  judgelm-benchmark --name=pandalm --data=PandaLM --predictions=gpt-3.5-turbo-testset-v1.json --output=runs/gpt

With --model the records are judged first, in the orders that the protocol asks for; with --predictions judgments that exist
are scored: ours, or a prediction file in the benchmark's own form. The folder of --output gets records.jsonl, labels.jsonl,
judgments.jsonl and metrics.json. --data is the original file, its folder, or the repository's root. --list names the
benchmarks, their protocols and label reductions.
"""

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

from absl import flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks.benchmark import Benchmark, Loaded
from judgelm_jax.evaluation.benchmarks.catalog import BENCHMARKS
from judgelm_jax.evaluation.benchmarks.predictions import read_predictions
from judgelm_jax.evaluation.report.folder import check_folder
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.presets import kind_of
from judgelm_jax.records.json_lines import Record, dump_line, read_jsonl
from judgelm_jax.records.output_files import check_output, write_atomically
from judgelm_jax.records.records import identity

FLAGS = flags.FlagValues()
_DEFAULTS = JudgeConfig()
NAME = flags.DEFINE_enum("name", None, list(BENCHMARKS), "the benchmark", flag_values=FLAGS)
DATA = flags.DEFINE_string("data", None, "its original file, the file's folder, or its repository", flag_values=FLAGS)
ANSWERS = flags.DEFINE_string(
    "answers", None, "the answers to judge, for a benchmark that has questions only", flag_values=FLAGS
)
MODEL = flags.DEFINE_string("model", None, "the judge: an Orbax or Hugging Face directory, or a hub id", flag_values=FLAGS)
BASE = flags.DEFINE_string("base", None, "as of judgelm-judge", flag_values=FLAGS)
PRESET = flags.DEFINE_string("preset", _DEFAULTS.preset, "as of judgelm-judge", flag_values=FLAGS)
CONTEXT = flags.DEFINE_integer("context", None, "as of judgelm-judge", lower_bound=16, flag_values=FLAGS)
PREDICTIONS = flags.DEFINE_multi_string(
    "predictions",
    [],
    "judgments to score instead: ours (given twice: the games of the forward and of the reversed order), or the benchmark's "
    "own prediction files",
    flag_values=FLAGS,
)
OUTPUT = flags.DEFINE_string("output", None, "the folder for records, labels, judgments and metrics", flag_values=FLAGS)
PROTOCOL = flags.DEFINE_string("protocol", None, "the rule of scoring; the benchmark's first when not given", flag_values=FLAGS)
REDUCTION = flags.DEFINE_string(
    "reduction", None, "how annotators become one label; the benchmark's first when not given", flag_values=FLAGS
)
LIMIT = flags.DEFINE_integer("limit", None, "only this many records from the start", lower_bound=1, flag_values=FLAGS)
MODE = flags.DEFINE_enum("mode", _DEFAULTS.mode, JudgeConfig.MODES, "as of judgelm-judge", flag_values=FLAGS)
DTYPE = flags.DEFINE_enum("dtype", _DEFAULTS.dtype, JudgeConfig.DTYPES, "as of judgelm-judge", flag_values=FLAGS)
MESH = flags.DEFINE_string("mesh", "data:-1", "as of judgelm-judge", flag_values=FLAGS)
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "as of judgelm-judge; automatic when not given", flag_values=FLAGS)
RESUME = flags.DEFINE_boolean("resume", False, "go on with an unfinished run in the same folder", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the files of an earlier run", flag_values=FLAGS)
REPORT = flags.DEFINE_string(
    "report", None, "also write a report to this folder: a page to open, Markdown, figures", flag_values=FLAGS
)
JSON = flags.DEFINE_string("json", None, "also write the summary as JSON to this file", flag_values=FLAGS)
LIST = flags.DEFINE_boolean("list", False, "name the benchmarks, their protocols and reductions, and end", flag_values=FLAGS)


def main() -> None:
    if LIST.value:
        print("\n".join(_described(benchmark) for benchmark in BENCHMARKS.values()))
        return
    benchmark, data, folder = _benchmark(), Path(DATA.value), Path(OUTPUT.value)
    protocol = _one_of("protocol", PROTOCOL.value, list(benchmark.protocols))
    reduction = _one_of("reduction", REDUCTION.value, list(benchmark.reductions))
    predictions = [Path(name) for name in PREDICTIONS.value]
    paths = {name: folder / f"{name}.jsonl" for name in ("records", "labels", "judgments")} | {
        "metrics": folder / "metrics.json"
    }
    read = [path for path in (data, *predictions, *([Path(ANSWERS.value)] if ANSWERS.value else [])) if path.is_file()]
    for path in paths.values():
        check_output(path, OVERWRITE.value or RESUME.value, read)
    own = {"command": "benchmark", "output": str(folder)}
    check_json(JSON.value, OVERWRITE.value, [*read, *paths.values()], own if RESUME.value else None)
    if REPORT.value:
        check_folder(Path(REPORT.value), OVERWRITE.value or RESUME.value)
    loaded = _read(benchmark, data, reduction)
    judgments = None if MODEL.value else read_predictions(benchmark, loaded, predictions)
    if LIMIT.value:
        loaded, judgments = _limited(loaded, judgments, LIMIT.value)
    _write(paths["records"], loaded.records)
    _write(paths["labels"], loaded.labels)
    if judgments is None:
        _judge(loaded.kind, benchmark.protocols[protocol].orders, paths)
        judgments = [row for _, row in read_jsonl(paths["judgments"])]
    else:
        _write(paths["judgments"], judgments)

    from judgelm_jax.evaluation.benchmarks.scoring import summarize_benchmark, summary_text

    summary = summarize_benchmark(benchmark, loaded, judgments, reduction=reduction, protocol=protocol)
    print(summary_text(summary))
    print(f"output     {folder}")
    write_json(str(paths["metrics"]), own | summary)
    write_json(JSON.value, own | summary)
    if REPORT.value:
        _report(loaded, judgments, paths["judgments"], summary_text(summary))


def entry() -> int:
    """The console command `judgelm-benchmark`."""
    return run(main, FLAGS, "benchmark")


def _benchmark() -> Benchmark:
    for flag in (NAME, DATA, OUTPUT):
        if not flag.value:
            raise InputError(f"--{flag.name} is missing; see --help, and --list for the benchmarks")
    if bool(MODEL.value) == bool(PREDICTIONS.value):
        raise InputError("give either --model, to judge, or --predictions, to score what exists")
    for flag in (BASE, CONTEXT, BATCH_SIZE):
        if flag.value and not MODEL.value:
            raise InputError(f"--{flag.name} goes with --model; leave it out")
    benchmark = BENCHMARKS[NAME.value]
    if ANSWERS.value and benchmark.add_answers is None:
        raise InputError(f"--answers goes with a benchmark that has questions only; {benchmark.name} brings its answers")
    if MODEL.value and benchmark.add_answers is not None and not ANSWERS.value:
        raise InputError(f"{benchmark.name} has questions only; give the answers to judge with --answers")
    return benchmark


def _one_of(name: str, value: str | None, choices: list[str]) -> str:
    if value is not None and value not in choices:
        raise InputError(f"--{name}={value}: {NAME.value} knows {', '.join(choices)}")
    return value or choices[0]


def _read(benchmark: Benchmark, data: Path, reduction: str) -> Loaded:
    loaded = benchmark.read(data, reduction)
    if benchmark.add_answers is not None and ANSWERS.value:
        loaded = benchmark.add_answers(loaded, Path(ANSWERS.value))
    if REPORT.value and loaded.kind != "pair":
        raise InputError(f"--report: there is one for pairs, and {benchmark.name} is of the kind {loaded.kind!r}; leave it out")
    if MODEL.value:
        kind_of(loaded.kind, PRESET.value)  # refuses a preset that does not ask so
    return loaded


def _limited(loaded: Loaded, judgments: list[Record] | None, limit: int) -> tuple[Loaded, list[Record] | None]:
    """The first records, their labels and their judgments."""
    cut = {identity(record) for record in loaded.records[limit:]}
    kept = None if judgments is None else [row for row in judgments if identity(row) not in cut]
    return dataclasses.replace(loaded, records=loaded.records[:limit], labels=loaded.labels[:limit]), kept


def _judge(kind: str, orders: str, paths: dict[str, Path]) -> None:
    """Judges as `judgelm-judge` does; a run that was killed goes on with --resume."""
    from judgelm_jax.commands import judge

    if not RESUME.value:
        paths["judgments"].unlink(missing_ok=True)
        shutil.rmtree(f"{paths['judgments']}.partial", ignore_errors=True)
    settings = {"kind": kind, "mode": MODE.value, "dtype": DTYPE.value, "mesh": MESH.value, "preset": PRESET.value}
    settings |= {"orders": orders} if kind == "pair" else {}  # others are no matter of two orders
    arguments = [f"--model={MODEL.value}", f"--input={paths['records']}", f"--output={paths['judgments']}", "--resume"]
    arguments += [f"--{name}={value}" for name, value in settings.items()]
    given = {"base": BASE.value, "context": CONTEXT.value, "batch_size": BATCH_SIZE.value}
    arguments += [f"--{name}={value}" for name, value in given.items() if value]
    judge.FLAGS.unparse_flags()
    judge.FLAGS(["judgelm-judge", *arguments])
    judge.main()


def _report(loaded: Loaded, judgments: list[Record], path: Path, about: str) -> None:
    """The report of `evaluate`, with the benchmark's own result before it."""
    from judgelm_jax.evaluation.benchmarks.scoring import joined_with, match
    from judgelm_jax.evaluation.joining import Fields
    from judgelm_jax.evaluation.ranking.comparisons import name_two_models, read_comparisons
    from judgelm_jax.evaluation.ranking.ranking import rank
    from judgelm_jax.evaluation.report.content import judge_report
    from judgelm_jax.evaluation.report.folder import write_report
    from judgelm_jax.evaluation.summary import full_summary

    joined = joined_with(loaded.labels, match(loaded, judgments)[0], None)
    summary = full_summary(joined, Fields(), parser="tolerant", unparsed="wrong")
    ranking = rank(read_comparisons([path], Fields().cluster).rows) if name_two_models(judgments) else None
    title, *sentences = about.splitlines()
    content = judge_report(title, judgments, joined, summary, ranking, about=sentences)
    print(f"report     {write_report(content, Path(REPORT.value))}")


def _described(benchmark: Benchmark) -> str:
    lines = [f"{benchmark.name:<14}{benchmark.title} ({benchmark.source})"]
    lines += [f"    --protocol={name}: {protocol.rule}" for name, protocol in benchmark.protocols.items()]
    return "\n".join(lines + [f"    --reduction={name}: {rule}" for name, rule in benchmark.reductions.items()])


def _write(path: Path, rows: Iterable[Record]) -> None:
    with write_atomically(path) as file:
        for row in rows:
            file.write(dump_line(row) + "\n")
