"""runs the main job on data that it makes itself.

Makes answers of two models with a known teacher and a small judge, then runs convert, prepare, judge and evaluate as a user
would, printing each command before it runs. The judge is untrained: its verdicts are noise, and the table shows how that
looks.

  judgelm-quickstart --output=runs/quickstart
"""

import shlex
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from absl import flags

from judgelm_jax.commands import command_line
from judgelm_jax.errors import InputError

FLAGS = flags.FlagValues()

OUTPUT = flags.DEFINE_string("output", "runs/quickstart", "the folder for everything that is made", flag_values=FLAGS)
PAIRS = flags.DEFINE_integer("pairs", 48, "answer pairs to make and judge", lower_bound=2, flag_values=FLAGS)
SEED = flags.DEFINE_integer("seed", 0, "of the pairs and of the judge's weights", flag_values=FLAGS)

_MARKER = ".quickstart"  # tells a folder of an earlier quickstart, which may be replaced, from one of the user's


def main() -> None:
    start = time.perf_counter()
    folder = Path(OUTPUT.value)
    _clear(folder)

    from judgelm_jax import laboratory
    from judgelm_jax.commands import convert, evaluate, judge, prepare

    first, second, labels = laboratory.write_answer_files(laboratory.make_pairs(PAIRS.value, SEED.value), folder)
    laboratory.write_checkpoint(folder / "judge-hf", SEED.value)
    print(f"made {PAIRS.value} answers of two models, the teacher's labels and an untrained judge in {folder}")

    records, judgments = folder / "records.jsonl", folder / "judgments.jsonl"
    _step(convert, "convert", [f"--source={folder / 'judge-hf'}", f"--target={folder / 'judge'}", "--to=orbax"])
    _step(prepare, "prepare", [f"--answers={first}", f"--answers={second}", f"--output={records}"])
    model = f"--model={folder / 'judge'}"
    _step(judge, "judge", [model, f"--input={records}", f"--output={judgments}", "--orders=both", "--dtype=float32"])
    metrics = f"--json={folder / 'metrics.json'}"
    _step(evaluate, "evaluate", [f"--labels={labels}", f"--predictions={judgments}", metrics])
    print(f"\nEverything lies in {folder} ({time.perf_counter() - start:.0f} s):")
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            print(f"  {path}")
    print("The judge has random weights: agreement near chance is what it should show.")


def entry() -> int:
    """The console command."""
    return command_line.run(main, FLAGS, "quickstart")


def _clear(folder: Path) -> None:
    if folder.exists():
        if not (folder / _MARKER).is_file():
            raise InputError(f"{folder}: stands there and was not made by quickstart; choose another --output")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARKER).touch()


def _step(module: ModuleType, name: str, arguments: Sequence[str]) -> None:
    print(f"\n$ judgelm-{name} {shlex.join(arguments)}", flush=True)
    code = command_line.run(module.main, module.FLAGS, name, arguments)
    if code:
        raise SystemExit(code)
