"""Makes a judge's probabilities mean what they say: fits a temperature and a tie threshold on labels.

  judgelm-calibrate --judgments=judgments.jsonl --labels=labels.jsonl --output=calibration.json

The judgments are those of `judgelm-judge --mode=distribution`. It fits on half of the questions and measures on the other half,
before and after: agreement, log loss, Brier score, calibration error and reliability. `judgelm-judge --calibration=FILE` then
applies it.
"""

from pathlib import Path

from absl import flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.joining import Fields, join
from judgelm_jax.records.output_files import check_output

FLAGS = flags.FlagValues()
JUDGMENTS = flags.DEFINE_string("judgments", None, "judgments with 'probabilities'", flag_values=FLAGS, required=True)
LABELS = flags.DEFINE_string(
    "labels", None, "JSON Lines with an id and 'winner', 'text' or 'score'", flag_values=FLAGS, required=True
)
OUTPUT = flags.DEFINE_string("output", None, "the calibration, as JSON", flag_values=FLAGS, required=True)
CLUSTER = flags.DEFINE_string(
    "cluster", "question_id", "the field that records of one question share; halves are of questions", flag_values=FLAGS
)
JSON = flags.DEFINE_string("json", None, "also write the calibration to this file", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the output if it exists", flag_values=FLAGS)

_FEWEST = 20  # records in each half


def main() -> None:
    judgments, labels, output = Path(JUDGMENTS.value), Path(LABELS.value), Path(OUTPUT.value)
    check_output(output, OVERWRITE.value, [judgments, labels])
    check_json(JSON.value, OVERWRITE.value, [judgments, labels, output])
    joined = join(labels, judgments, None, "tolerant", fields=Fields(CLUSTER.value))

    import numpy as np

    from judgelm_jax.evaluation import calibration as calibrating

    rows = [
        (row.probabilities, label, cluster)
        for row, label, cluster in zip(joined.predictions, joined.labels or [], joined.clusters(), strict=True)
        if row.probabilities is not None
    ]
    halves = [[row for row in rows if calibrating.held_out(row[2]) == half] for half in (False, True)]
    if min(map(len, halves)) < _FEWEST:
        raise InputError(
            f"{judgments}: {len(halves[0])} and {len(halves[1])} labelled records with probabilities are in the two halves of "
            f"the questions; at least {_FEWEST} are needed in each (judge with --mode=distribution)"
        )
    fitting = np.array([row[0] for row in halves[0]]), [row[1] for row in halves[0]]
    fitted = calibrating.fit(*fitting)
    chosen = np.array([row[0] for row in halves[1]]), [row[1] for row in halves[1]], [row[2] for row in halves[1]]
    before = calibrating.measure(*chosen, calibrating.Calibration(1.0, None))
    after = calibrating.measure(*chosen, fitted)
    summary = {
        "temperature": fitted.temperature,
        "tie_threshold": fitted.tie_threshold,
        "fitted_on": {"records": len(halves[0]), "clusters": len({row[2] for row in halves[0]})},
        "measured_on": {"records": len(halves[1]), "clusters": len({row[2] for row in halves[1]})},
        "without_probabilities": len(joined.predictions) - len(rows),
        "before": before,
        "after": after,
    }
    for path in (OUTPUT.value, JSON.value):
        write_json(path, summary)
    threshold = "none" if fitted.tie_threshold is None else f"{fitted.tie_threshold:.4f}"
    print(f"temperature {fitted.temperature:.4f}, tie threshold {threshold}, fitted on {len(halves[0])} records")
    if calibrating.is_always_right(*fitting):
        print("warning    the judge is right on all of these: no temperature fits best, so do not apply this; give more labels")
    print(f"measured on {len(halves[1])} records of other questions:")
    print(f"{'':<12}{'agreement':>10}{'log loss':>10}{'Brier':>10}{'ECE':>10}")
    for name, figures in (("before", before), ("after", after)):
        values = "".join(f"{figures[key]:>10.4f}" for key in ("agreement", "log_loss", "brier", "ece"))
        print(f"{name:<12}{values}")
    print("\nprobability  records   mean    right   (after)")
    for row in after["reliability"]:
        print(f"{row['from']:.1f} to {row['to']:.1f}{row['records']:>9}{row['probability']:>9.3f}{row['right']:>8.3f}")


def entry() -> int:
    """The console command `judgelm-calibrate`."""
    return run(main, FLAGS, "calibrate")
