"""How good and how fair is a judge? Agreement with labels, consistency and bias over both orders, wins; with intervals.

  judgelm-evaluate --predictions=judgments.jsonl [--labels=labels.jsonl] [--reversed_predictions=reversed.jsonl]

Files are joined by id. Judgments that `judgelm-judge --orders=both` wrote hold both orders; others can be given as two files.
Without --labels it says what needs none. A judgment that does not parse counts as wrong unless --unparsed says otherwise. A
label without a prediction counts in no metric and is reported as missing; one out of range is dropped and counted.
"""

import sys
from pathlib import Path

from absl import flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import DECISIONS, PARSERS, Fields, Joined, join
from judgelm_jax.evaluation.report.folder import check_folder, write_report
from judgelm_jax.records.json_lines import read_jsonl

FLAGS = flags.FlagValues()
LABELS = flags.DEFINE_string(
    "labels", None, "JSON Lines with an id and 'winner', 'text' or 'score'; left out: what needs no labels", flag_values=FLAGS
)
PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "judgments; rows that say no order are taken as forward", flag_values=FLAGS, required=True
)
REVERSED_PREDICTIONS = flags.DEFINE_string(
    "reversed_predictions", None, "judgments of the reversed order, where they stand in a second file", flag_values=FLAGS
)
AGAINST = flags.DEFINE_string(
    "against", None, "judgments of another judge or run, compared with --predictions on the records of both", flag_values=FLAGS
)
REPEATED = flags.DEFINE_multi_string(
    "repeated", [], "further judgments of the same records, such as with another --seed; may be given often", flag_values=FLAGS
)
CLUSTER = flags.DEFINE_string(
    "cluster",
    "question_id",
    "the field that records of one question share, of the judgments or else of the labels; intervals are by it",
    flag_values=FLAGS,
)
BY = flags.DEFINE_string(
    "by",
    None,
    "a field of the records (dots lead into objects): the figures once more for each of its values",
    flag_values=FLAGS,
)
DECIDE = flags.DEFINE_enum(
    "decide",
    "winner",
    list(DECISIONS),
    "how a distribution over scores names a winner: its most likely winner, the larger mean score, or the most likely line",
    flag_values=FLAGS,
)
RISK = flags.DEFINE_float(
    "risk",
    None,
    "how often the verdicts that are kept may be wrong, such as 0.1: says from which sureness on, and how many are kept",
    lower_bound=0.0,
    upper_bound=1.0,
    flag_values=FLAGS,
)
WIDTH = flags.DEFINE_float(
    "width",
    None,
    "a wished width of intervals: where only some judgments have labels, says how many labels it takes",
    lower_bound=1e-4,
    upper_bound=1.0,
    flag_values=FLAGS,
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
REPORT = flags.DEFINE_string(
    "report", None, "also write a report to this folder: a page to open, Markdown, figures", flag_values=FLAGS
)
OVERWRITE = flags.DEFINE_boolean(
    "overwrite", False, "replace the file of --json and the report if they exist", flag_values=FLAGS
)


def main() -> None:
    if PARSER.value == "upstream" and UNPARSED.value not in (None, "tie"):
        raise InputError("--parser=upstream counts what does not parse as a tie; leave out --unparsed")
    if PARSER.value == "upstream" and DECIDE.value != "winner":
        raise InputError("--parser=upstream reads scores from the text; leave out --decide")
    if RISK.value is not None and not LABELS.value:
        raise InputError("--risk needs --labels: how often verdicts are wrong is measured on them")
    labels, predictions, reversed_predictions, against = (
        Path(flag.value) if flag.value else None for flag in (LABELS, PREDICTIONS, REVERSED_PREDICTIONS, AGAINST)
    )
    assert predictions is not None
    repeated = [Path(path) for path in REPEATED.value]
    inputs = [path for path in (labels, predictions, reversed_predictions, against, *repeated) if path is not None]
    check_json(JSON.value, OVERWRITE.value, inputs)
    if REPORT.value:
        check_folder(Path(REPORT.value), OVERWRITE.value)
    fields = Fields(CLUSTER.value, BY.value)
    joined = join(labels, predictions, reversed_predictions, PARSER.value, decide=DECIDE.value, fields=fields)
    _check_fields(joined, predictions)
    other, *runs = (
        None if path is None else join(labels, path, None, PARSER.value, decide=DECIDE.value, fields=fields)
        for path in (against, *repeated)
    )

    from judgelm_jax.evaluation.decisions import join_decisions
    from judgelm_jax.evaluation.plain_text import in_plain_words, metrics_table
    from judgelm_jax.evaluation.summary import full_summary

    summary = full_summary(
        joined,
        fields,
        parser=PARSER.value,
        unparsed=UNPARSED.value or "wrong",
        against=other,
        decisions=join_decisions(labels, predictions, reversed_predictions, fields) if labels else None,
        repeated=[run for run in runs if run is not None],
        risk=RISK.value,
        width=WIDTH.value,
    )
    if joined.missing or joined.unlabelled:
        print(
            f"judgelm-evaluate: {joined.missing} labels without a prediction and {joined.unlabelled} predictions without a "
            "label are left out",
            file=sys.stderr,
        )
    if joined.labels_out_of_range and not joined.labels:
        raise InputError(f"{labels}: all {joined.labels_out_of_range} labels are out of range; a winner is 0, 1 or 2")
    if joined.labels_out_of_range:
        print(
            f"judgelm-evaluate: {labels}: {joined.labels_out_of_range} labels are out of range and dropped; a winner is 0, 1 "
            "or 2",
            file=sys.stderr,
        )
    print(in_plain_words(summary) + "\n")
    print(metrics_table(summary))
    write_json(JSON.value, summary)
    if REPORT.value:
        _report(joined, summary, predictions, labels)


def _check_fields(joined: Joined, path: Path) -> None:
    """A field that no record has is a slip, but the default may be missing: ids then stand in `pair_id`."""
    facts = [row.facts for row in joined.predictions]
    if CLUSTER.value != CLUSTER.default and facts and all(fact.cluster is None for fact in facts):
        raise InputError(f"{path}: no record has the field {CLUSTER.value!r} of --cluster; name one that the records have")
    if BY.value and facts and all(fact.group is None for fact in facts):
        raise InputError(f"{path}: no record has the field {BY.value!r} of --by; name one that the records have")


def _report(joined: Joined, summary: dict, predictions: Path, labels: Path | None) -> None:
    from judgelm_jax.evaluation.ranking.comparisons import name_two_models, read_comparisons
    from judgelm_jax.evaluation.ranking.ranking import rank
    from judgelm_jax.evaluation.report.content import judge_report

    judgments = [row for _, row in read_jsonl(predictions)]
    named = name_two_models(judgments)
    ranking = None
    if named:
        comparisons = read_comparisons([predictions], CLUSTER.value, parser=PARSER.value, decide=DECIDE.value).rows
        ranking = rank(comparisons) if comparisons else None
    title = f"Judgments of {predictions.name}" + (f" against {labels.name}" if labels else "")
    content = judge_report(title, judgments, joined, summary, ranking)
    print(f"report     {write_report(content, Path(REPORT.value))}")


def entry() -> int:
    """The console command `judgelm-evaluate`."""
    return run(main, FLAGS, "evaluate")
