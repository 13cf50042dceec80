"""Holds judgments against labels: agreement, precision, recall, F1, and with both orders consistency and biases.

  judgelm-evaluate --labels=labels.jsonl --predictions=judgments.jsonl [--reversed_predictions=reversed.jsonl]

Files are joined by id. Judgments that `judgelm-judge --orders=both` wrote hold both orders; others can be given as two files.
A judgment that does not parse counts as wrong unless --unparsed says otherwise. A label without a prediction counts in no
metric and is reported as missing.
"""

import sys
from pathlib import Path

from absl import flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import PARSERS, join_files

FLAGS = flags.FlagValues()
LABELS = flags.DEFINE_string(
    "labels", None, "JSON Lines with an id and 'winner', 'text' or 'score'", flag_values=FLAGS, required=True
)
PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "judgments; rows that say no order are taken as forward", flag_values=FLAGS, required=True
)
REVERSED_PREDICTIONS = flags.DEFINE_string(
    "reversed_predictions", None, "judgments of the reversed order, where they stand in a second file", flag_values=FLAGS
)
PARSER = flags.DEFINE_enum(
    "parser", "tolerant", list(PARSERS), "'upstream' reads scores as the published metric code does", flag_values=FLAGS
)
UNPARSED = flags.DEFINE_enum(
    "unparsed",
    None,
    ["wrong", "exclude", "tie"],
    "what a judgment without a winner counts as; 'wrong' unless given, always 'tie' with --parser=upstream",
    flag_values=FLAGS,
)
JSON = flags.DEFINE_string("json", None, "also write the summary to this file, as JSON", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the file of --json if it exists", flag_values=FLAGS)


def main() -> None:
    if PARSER.value == "upstream" and UNPARSED.value not in (None, "tie"):
        raise InputError("--parser=upstream counts what does not parse as a tie; leave out --unparsed")
    labels, predictions = Path(LABELS.value), Path(PREDICTIONS.value)
    reversed_predictions = Path(REVERSED_PREDICTIONS.value) if REVERSED_PREDICTIONS.value else None
    inputs = [labels, predictions, *([reversed_predictions] if reversed_predictions else [])]
    check_json(JSON.value, OVERWRITE.value, inputs)
    joined = join_files(labels, predictions, reversed_predictions, PARSER.value)

    from judgelm_jax.evaluation.metrics import metrics_table, summarize

    summary = summarize(joined, parser=PARSER.value, unparsed=UNPARSED.value or "wrong")
    if joined.missing or joined.unlabelled:
        print(
            f"judgelm-evaluate: {joined.missing} labels without a prediction and {joined.unlabelled} predictions without a "
            "label are left out",
            file=sys.stderr,
        )
    print(metrics_table(summary))
    write_json(JSON.value, summary)


def entry() -> int:
    """The console command `judgelm-evaluate`."""
    return run(main, FLAGS, "evaluate")
