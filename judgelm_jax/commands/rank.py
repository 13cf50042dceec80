"""Ranks the models behind judgments: strengths, win rates, and in how many resamples one beats another.

  judgelm-rank --judgments=judgments.jsonl --output=ranking.json [--report=DIR]

The judgments are those of `judgelm-judge`, of pairs or of several answers; each answer needs its model's name
(`answer1_model_id`, as `judgelm-prepare` writes it). Strengths are Bradley and Terry's, in log-odds; a tie is half a win.
Questions are resampled, not pairs: pairs of one question are not independent.
"""

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import DECISIONS
from judgelm_jax.evaluation.report.folder import check_folder, write_report
from judgelm_jax.records.json_lines import read_jsonl

FLAGS = flags.FlagValues()
JUDGMENTS = flags.DEFINE_multi_string(
    "judgments", None, "a file of judgments; repeat for several", flag_values=FLAGS, required=True
)
OUTPUT = flags.DEFINE_string("output", None, "write the ranking to this file, as JSON", flag_values=FLAGS)
JSON = flags.DEFINE_string("json", None, "the same as --output", flag_values=FLAGS)
BY = flags.DEFINE_string("by", None, "a field of the records; also rank within each of its values", flag_values=FLAGS)
CLUSTER = flags.DEFINE_string("cluster", "question_id", "the field that judgments of one question share", flag_values=FLAGS)
CONTROL = flags.DEFINE_list(
    "control", [], "rank at equal `length` (words), `style` (headers, lists, bold), or both: length,style", flag_values=FLAGS
)
DECIDE = flags.DEFINE_enum(
    "decide",
    "winner",
    list(DECISIONS),
    "how a distribution over scores says who is better: of pairs as in judgelm-evaluate; more answers are compared by their "
    "scores, with mean by their expected scores.",
    flag_values=FLAGS,
)
SEED = flags.DEFINE_integer("seed", 0, "of the resampling", flag_values=FLAGS)
REPORT = flags.DEFINE_string(
    "report", None, "also write a report to this folder: a page to open, Markdown, figures", flag_values=FLAGS
)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the output and the report if they exist", flag_values=FLAGS)


def main() -> None:
    from judgelm_jax.evaluation.ranking.covariates import CONTROLS

    unknown = set(CONTROL.value) - set(CONTROLS)
    if unknown:
        raise InputError(f"--control={','.join(CONTROL.value)}: {unknown.pop()!r} is none of {', '.join(CONTROLS)}")
    inputs = [Path(path) for path in JUDGMENTS.value]
    for output in (OUTPUT.value, JSON.value):
        check_json(output, OVERWRITE.value, inputs)
    if REPORT.value:
        check_folder(Path(REPORT.value), OVERWRITE.value)

    from judgelm_jax.evaluation.position_bias import count_positions
    from judgelm_jax.evaluation.ranking.comparisons import read_comparisons
    from judgelm_jax.evaluation.ranking.ranking import rank
    from judgelm_jax.evaluation.ranking.text import in_words, table

    read = read_comparisons(inputs, CLUSTER.value, BY.value, decide=DECIDE.value)
    if not read.rows:
        files = ", ".join(map(str, inputs))
        raise InputError(f"{files}: no judgment has a verdict ({read.undecided} without one); a ranking needs decided ones")
    ranking: dict[str, Any] = {**rank(read.rows, CONTROL.value, SEED.value), "undecided": read.undecided}
    if read.orders.pairs():
        ranking["orders"] = dataclasses.asdict(read.orders) | {"follow_position": read.orders.follow_position()}
    positions = count_positions(row for path in inputs for _, row in read_jsonl(path))
    if positions.records:
        ranking["positions"] = dataclasses.asdict(positions) | {"follow_position": positions.follow_position()}
    if BY.value:
        values = sorted({row.group for row in read.rows if row.group is not None})
        ranking["by"] = BY.value
        ranking["groups"] = {
            value: rank([row for row in read.rows if row.group == value], CONTROL.value, SEED.value) for value in values
        }
    print(f"{in_words(ranking)}\n\n{table(ranking)}")
    for value, group in ranking.get("groups", {}).items():
        print(f"\n{BY.value} = {value}: {in_words(group)}\n\n{table(group)}")
    for output in (OUTPUT.value, JSON.value):
        write_json(output, ranking)
    if REPORT.value:
        from judgelm_jax.evaluation.report.content import ranking_report

        judgments = [row for path in inputs for _, row in read_jsonl(path)]
        title = f"Ranking of {len(ranking['models'])} models"
        print(f"report     {write_report(ranking_report(title, judgments, ranking), Path(REPORT.value))}")


def entry() -> int:
    """The console command `judgelm-rank`."""
    return run(main, FLAGS, "rank")
