"""runs the main job on data that it makes itself: trains a small judge from random weights and judges with it.

Makes judgments of a teacher who knows all answers, and new answers of three models; then runs train, convert, prepare, judge,
evaluate and rank as a user would, printing each command before it runs. What comes out is a report to look at. It takes two to
three minutes on two CPU cores, nearly all of them for the training.

  judgelm-quickstart --output=runs/quickstart
"""

import json
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags

from judgelm_jax.commands import command_line
from judgelm_jax.errors import InputError

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

_MARKER = ".quickstart"  # tells a folder of an earlier quickstart, which may be replaced, from one of the user's
_CONFIG = '''"""The recipe of the quickstart: see judgelm_jax/laboratory/recipe.py."""

from judgelm_jax.laboratory.recipe import get_config

__all__ = ["get_config"]
'''


def main() -> None:
    start = time.perf_counter()
    folder = Path(OUTPUT.value)
    command_line.check_json(JSON.value, OVERWRITE.value, [folder])
    _clear(folder)

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
    _step(train, "train", training)
    trained, exported = folder / "training" / "model", folder / "judge-hf"
    _step(convert, "convert", [f"--source={trained}", f"--target={exported}", "--to=hf"])
    _step(convert, "convert", [f"--source={exported}", f"--target={folder / 'judge'}", "--to=orbax"])
    records, judgments, metrics = (folder / name for name in ("records.jsonl", "judgments.jsonl", "metrics.json"))
    _step(prepare, "prepare", [*(f"--answers={path}" for path in answers), "--pairs=all", f"--output={records}"])
    model = f"--model={folder / 'judge'}"
    _step(judge, "judge", [model, f"--input={records}", f"--output={judgments}", "--orders=both", "--dtype=float32"])
    report = folder / "report"
    compared = [f"--labels={labels}", f"--predictions={judgments}", f"--json={metrics}", f"--report={report}"]
    _step(evaluate, "evaluate", compared)
    _step(rank, "rank", [f"--judgments={judgments}", f"--output={folder / 'ranking.json'}"])

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


def _clear(folder: Path) -> None:
    if folder.exists():
        if not (folder / _MARKER).is_file():
            raise InputError(f"{folder}: exists and was not made by quickstart; choose another --output")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARKER).touch()


def _step(module: ModuleType, name: str, arguments: Sequence[str]) -> None:
    print(f"\n$ judgelm-{name} {shlex.join(arguments)}", flush=True)
    code = command_line.run(module.main, module.FLAGS, name, arguments)
    if code:
        raise SystemExit(code)
