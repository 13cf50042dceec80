"""Kills any one process of a run at random moments, again and again, and says how the others end and how the run goes on.

  python tests/kill_processes.py judge 20
  python tests/kill_processes.py train 20

Each round starts a run of two or three processes on two fake devices each, kills one of them after a random time and waits for
the others, which must end within 60 s with exit code 3 and one line that names the one that was lost. The run goes on with
--resume, training with as many processes, judging with one to three, to the result of a run that nothing disturbed.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from several_processes import kill_one, run_together, start_together

from judgelm_jax import laboratory
from judgelm_jax.records.json_lines import dump_line

SECONDS = 60
WAIT = "--join_timeout=30"  # for one that was killed before it came

CONFIG = """
from judgelm_jax.training_config import *

def get_config():
    return TrainConfig(
        model=ModelShape(hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2, context=256),
        data=DataConfig(length=128, packing=True),
        training=RecipeConfig(epochs=3, batch=12, learning_rate=3e-3),
        computation=ComputationConfig(dtype="float32", mesh="data:-1", remat="none"),
        checkpoints=CheckpointConfig(every=3, keep=2, export_dtype="float32"),
    )
"""

Arguments = Callable[[Path], list[str]]


def judging(folder: Path, records: int = 60) -> Arguments:
    """Files of a judging run, and its flags with an --output."""
    laboratory.write_checkpoint(folder / "judge", seed=0)
    pairs = laboratory.make_pairs(records, seed=3)
    (folder / "records.jsonl").write_text("".join(dump_line(pair.record) + "\n" for pair in pairs))
    own = [f"--model={folder / 'judge'}", f"--input={folder / 'records.jsonl'}", "--dtype=float32", "--mode=explain"]
    own += ["--batch_size=12", "--max_new_tokens=32", "--resume", WAIT]
    return lambda output: [*own, f"--output={output}"]


def training(folder: Path, records: int = 120) -> Arguments:
    """Files of a training run, and its flags with an --output."""
    laboratory.write_tokenizer(folder, sentences=True)
    (folder / "config.py").write_text(CONFIG)
    rows = laboratory.training_records(records, seed=1)
    (folder / "train.jsonl").write_text("".join(dump_line(row) + "\n" for row in rows))
    own = [f"--config={folder / 'config.py'}", f"--data={folder / 'train.jsonl'}", f"--tokenizer={folder}", "--resume", WAIT]
    return lambda output: [*own, f"--output={output}"]


def result(command: str, output: Path) -> list[dict[str, object]]:
    """What a run left, without what depends on the clock."""
    lines = output.read_text().splitlines() if command == "judge" else (output / "metrics.jsonl").read_text().splitlines()
    marks = ("pred_id", "tstamp", "seconds", "tokens_per_second", "tflops", "utilization", "memory_bytes")
    return [{name: value for name, value in json.loads(line).items() if name not in marks} for line in lines]


def complaints(err: str) -> list[str]:
    """The lines that are none of a run's log, which begin with the time, or of those who wait."""
    return [line for line in err.splitlines() if line and not line[0].isdigit() and "waiting for" not in line]


def rounds(command: str, count: int, seed: int = 0, processes: Sequence[int] = (2, 3), devices: int = 2) -> None:
    """Kills `count` times; prints a line each, and raises an `AssertionError` where something is not as it must be.

    `processes` (one of these numbers, drawn each time) and `devices` of each: of the runs that are killed.
    """
    draw = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="killed-"))
    undisturbed: dict[int, tuple[list[dict[str, object]], float]] = {}  # by number of processes: the result, seconds
    try:
        arguments = (judging if command == "judge" else training)(folder)
        for number in processes:
            begun = time.monotonic()
            run_together(command, arguments(folder / f"whole-{number}"), number, devices)
            undisturbed[number] = result(command, folder / f"whole-{number}"), time.monotonic() - begun
            print(f"{command}: {number} processes, undisturbed {undisturbed[number][1]:.1f} s", flush=True)
        for number in range(count):
            output, together = folder / f"run-{number}", draw.choice(processes)
            whole, whole_seconds = undisturbed[together]
            moment, victim = draw.uniform(1.0, whole_seconds), draw.randrange(together)
            again = draw.randint(1, max(processes)) if command == "judge" else together
            killed = start_together(command, arguments(output), together, devices)
            time.sleep(moment)
            others, seconds = kill_one(killed, victim)
            codes = [code for code, _, _ in others]
            said = [complaints(err) for _, _, err in others]
            print(
                f"{command} {number + 1:2d}: killed process {victim} of {together} after {moment:4.1f} s; the others ended "
                f"after {seconds:4.1f} s with {codes}, saying {said[0]}",
                flush=True,
            )
            assert seconds < SECONDS, f"the last ended after {seconds:.1f} s"
            if set(codes) == {0}:  # all had done their work when the kill came
                assert not any(said), said
                assert result(command, output) == whole
            else:
                assert codes == [3] * len(codes), [err for _, _, err in others]
                for lines in said:
                    assert len(lines) == 1, lines
                    assert f"process {victim} " in lines[0], lines
            run_together(command, arguments(output), again, devices)
            same = result(command, output) == whole
            print(f"{command} {number + 1:2d}: went on with {again}; result {'the same' if same else 'ANOTHER'}", flush=True)
            assert same
            shutil.rmtree(output) if output.is_dir() else output.unlink()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    rounds(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
