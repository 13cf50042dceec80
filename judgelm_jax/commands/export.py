"""Writes judgments in the forms that other tools read.

  judgelm-export --judgments=judgments.jsonl --format=lmarena --output=battles.jsonl

alpaca_eval: annotations.json. mt_bench: rows of model_judgment/…_pair.jsonl. arena_hard: rows of model_judgment with both
games. lmarena: a battle a game. inspect_ai: records for its scorer precomputed_scores. csv and parquet: a table of everything.
Where a form knows a baseline and a model, the first answer is the baseline, as prepare --pairs=baseline:NAME puts it.
"""

from pathlib import Path

from absl import flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.evaluation.formats.writing import FORMATS, write_judgments
from judgelm_jax.records.output_files import check_output

FLAGS = flags.FlagValues()
JUDGMENTS = flags.DEFINE_string("judgments", None, "what judgelm-judge wrote", flag_values=FLAGS, required=True)
FORMAT = flags.DEFINE_enum("format", None, list(FORMATS), "the form to write", flag_values=FLAGS, required=True)
OUTPUT = flags.DEFINE_string("output", None, "the file to write", flag_values=FLAGS, required=True)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace outputs that exist", flag_values=FLAGS)
JSON = flags.DEFINE_string("json", None, "also write the counts to this file, as JSON", flag_values=FLAGS)


def main() -> None:
    source, output = Path(JUDGMENTS.value), Path(OUTPUT.value)
    check_output(output, OVERWRITE.value, [source])
    check_json(JSON.value, OVERWRITE.value, [source, output])
    counts = write_judgments(output, FORMAT.value, read_rows(source))
    print(
        f"{counts['judgments']} judgments, {counts['without_verdict']} of them without a verdict, give {counts['written']} "
        f"rows of {FORMAT.value} in {output}."
    )
    write_json(JSON.value, counts)


def entry() -> int:
    """The console command `judgelm-export`."""
    return run(main, FLAGS, "export")
