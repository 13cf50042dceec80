"""runs the main job on data that it makes itself: trains a small judge from random weights and judges with it.

Makes judgments of a teacher who knows all answers, and new answers of three models; then runs train, convert, prepare, judge,
evaluate and rank as a user would, printing each command before it runs. What comes out is a report to look at. It takes about
two minutes on two CPU cores, nearly all of them for the training. What was ended goes on with the same command.

  judgelm-quickstart --output=runs/quickstart
"""

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags

from judgelm_jax.commands import command_line
from judgelm_jax.errors import InputError
from judgelm_jax.records.output_files import write_atomically

FLAGS = flags.FlagValues()

OUTPUT = flags.DEFINE_string("output", "runs/quickstart", "the folder for everything that is made", flag_values=FLAGS)
QUESTIONS = flags.DEFINE_integer(
    "questions", 70, "held-out questions; every two answers of three models are judged", lower_bound=2, flag_values=FLAGS
)
STEPS = flags.DEFINE_integer(
    "steps", 0, "end the training after this many steps; 0: when the judge has learned", lower_bound=0, flag_values=FLAGS
)
SEED = flags.DEFINE_integer("seed", 0, "of the data and of the weights before training", flag_values=FLAGS)
JSON = flags.DEFINE_string("json", None, "also write the summary as JSON to this file", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the file of --json if it exists", flag_values=FLAGS)

_MARKER = ".quickstart"  # in a folder of a quickstart: its settings
_CONFIG = '''"""The recipe of the quickstart: see judgelm_jax/laboratory/recipe.py."""

from judgelm_jax.laboratory.recipe import get_config

__all__ = ["get_config"]
'''


def main() -> None:
    start = time.perf_counter()
    folder = Path(OUTPUT.value)
    command_line.check_json(JSON.value, OVERWRITE.value, [folder])
    settings = {"questions": QUESTIONS.value, "steps": STEPS.value, "seed": SEED.value}
    begun = _claim(folder, settings)
    again, on = (["--overwrite"], ["--resume"]) if begun else ([], [])

    from judgelm_jax import laboratory
    from judgelm_jax.commands import convert, evaluate, judge, prepare, rank, train
    from judgelm_jax.laboratory import recipe

    pairs = laboratory.make_contest(QUESTIONS.value, SEED.value)
    answers, labels = laboratory.write_answer_files(pairs, folder)
    data, untrained, config = folder / "training.jsonl", folder / "untrained", folder / "config.py"
    laboratory.write_records(data, laboratory.training_records(recipe.TRAINING_RECORDS, SEED.value, pairs))
    laboratory.write_pupil(untrained, SEED.value, recipe.get_config().model)
    config.write_text(_CONFIG, encoding="utf-8")
    print(
        f"made in {folder}: {recipe.TRAINING_RECORDS} judgments of a teacher, a judge with random weights, and the answers "
        f"of three models to {QUESTIONS.value} new questions with the teacher's labels"
    )

    steps = [f"--config.training.steps={STEPS.value}"] if STEPS.value else []
    training = [f"--config={config}", *steps, f"--data={data}", f"--init_from={untrained}", f"--output={folder / 'training'}"]
    _step(train, "train", training + on)
    trained, exported = folder / "training" / "model", folder / "judge-hf"
    _step(convert, "convert", [f"--source={trained}", f"--target={exported}", "--to=hf", *again])
    _step(convert, "convert", [f"--source={exported}", f"--target={folder / 'judge'}", "--to=orbax", *again])
    records, judgments, metrics = (folder / name for name in ("records.jsonl", "judgments.jsonl", "metrics.json"))
    _step(prepare, "prepare", [*(f"--answers={path}" for path in answers), "--pairs=all", f"--output={records}", *again])
    model = f"--model={folder / 'judge'}"
    _step(judge, "judge", [model, f"--input={records}", f"--output={judgments}", "--orders=both", "--dtype=float32", *on])
    report = folder / "report"
    compared = [f"--labels={labels}", f"--predictions={judgments}", f"--json={metrics}", f"--report={report}"]
    _step(evaluate, "evaluate", compared + again)
    _step(rank, "rank", [f"--judgments={judgments}", f"--output={folder / 'ranking.json'}", *again])

    seconds = time.perf_counter() - start
    print(f"\nEverything lies in {folder} ({seconds:.0f} s):")
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            print(f"  {path}")
    agreement = json.loads(metrics.read_text(encoding="utf-8"))["agreement"]
    guessing, constant = _chance([laboratory.winner(pair) for pair in pairs])
    print(
        f"The judge agrees with the teacher on {100 * agreement:.1f} % of the pairs. Guessing would agree on "
        f"{100 * guessing:.1f} %, and always naming the most frequent winner on {100 * constant:.1f} %."
    )
    print(f"Open {report / 'index.html'} to see the judge, the ranking of the three models, and every pair.")
    summary = {"command": "quickstart", "output": str(folder), "agreement": agreement}
    summary |= {"guessing": guessing, "most_frequent_winner": constant, "seconds": round(seconds, 3)}
    command_line.write_json(JSON.value, summary)


def entry() -> int:
    """The console command."""
    return command_line.run(main, FLAGS, "quickstart")


def _chance(winners: Sequence[int]) -> tuple[float, float]:
    """The expected agreement of a judge that guesses as often as each winner occurs, and that of the best constant one."""
    shares = [count / len(winners) for count in Counter(winners).values()]
    return sum(share * share for share in shares), max(shares)


def _claim(folder: Path, settings: dict[str, int]) -> bool:
    """Makes the folder; returns whether a quickstart of these settings has begun there before."""
    marker, own = folder / _MARKER, json.dumps(settings)
    if folder.exists() and any(folder.iterdir()):
        if not marker.is_file():
            raise InputError(f"{folder}: exists and was not made by quickstart; choose another --output")
        if marker.read_text(encoding="utf-8") != own:
            raise InputError(
                f"{folder}: holds a quickstart of another --questions, --steps or --seed; choose another --output, or remove it"
            )
        return True
    folder.mkdir(parents=True, exist_ok=True)
    with write_atomically(marker) as file:
        file.write(own)
    return False


def _step(module: ModuleType, name: str, arguments: Sequence[str]) -> None:
    print(f"\n$ judgelm-{name} {shlex.join(arguments)}", flush=True)
    code = command_line.run(module.main, module.FLAGS, name, arguments)
    if code:
        if code != 2:  # 2: the input is wrong
            print("judgelm-quickstart: the same command goes on", file=sys.stderr)
        raise SystemExit(code)
