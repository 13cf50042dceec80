"""trains a judge: fine-tunes a checkpoint (or, for small ones, random weights) on the judgments of a teacher.

--config names a Python file whose `get_config()` returns a TrainConfig; any field can be overridden on the command line.
The run goes to --output: metrics.jsonl, tensorboard/, checkpoints/, and in the end model/, which judgelm-judge opens. After
a kill, the same command with --resume ends as if there had been none.

  judgelm-train --config=configs/judgelm_7b.py --data=train.jsonl --init_from=vicuna-7b --output=runs/judge \\
    --config.training.learning_rate=1e-5

On several hosts run the same command on each, with --coordinator, --processes and --process, or with --distributed where the
cluster says those (Slurm, GKE, TPU pods).
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from judgelm_jax.commands.command_line import check_json, describe, run, write_json
from judgelm_jax.errors import InputError
from judgelm_jax.notices import duration
from judgelm_jax.processes.process_flags import define
from judgelm_jax.training.config_fields import ConfigFlags, help_lines, overridden
from judgelm_jax.training_config import TrainConfig

__doc__ = f"{__doc__}\nfields of the config:\n{help_lines()}"

FLAGS = ConfigFlags()

config_flags.DEFINE_config_file("config", None, "a file of configs/, or one like it", flag_values=FLAGS)
flags.mark_flag_as_required("config", FLAGS)
DATA = flags.DEFINE_string("data", None, "JudgeLM-100K rows, JSON Lines", required=True, flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "the folder of the run", required=True, flag_values=FLAGS)
INIT_FROM = flags.DEFINE_string("init_from", None, "a checkpoint to fine-tune: folder or hub id", flag_values=FLAGS)
TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "without --init_from: a folder with tokenizer files; the weights are random", flag_values=FLAGS
)
EVALUATION = flags.DEFINE_string(
    "evaluation", None, "held-out rows in the form of --data: loss and judge metrics inside the loop", flag_values=FLAGS
)
DEVICE_MEMORY = flags.DEFINE_float(
    "device_memory", None, "GiB that a device may use; when not given, what it has", lower_bound=0.0, flag_values=FLAGS
)
RESUME = flags.DEFINE_boolean("resume", False, "go on with an unfinished run, or start one", flag_values=FLAGS)
PROCESSES = define(FLAGS)
DRY_RUN = flags.DEFINE_boolean(
    "dry_run",
    False,
    "check everything, compile, try some steps, say tokens, memory and time, and write nothing",
    flag_values=FLAGS,
)
PROFILE = flags.DEFINE_integer(
    "profile", 0, "trace this many steps with JAX's profiler into OUTPUT/profile", lower_bound=0, flag_values=FLAGS
)
JSON = flags.DEFINE_string("json", None, "also write the summary as JSON to this file", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the file of --json if it exists", flag_values=FLAGS)


def main() -> None:
    config = FLAGS.config
    path = Path(config_flags.get_config_filename(FLAGS["config"]))
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; name a config, as configs/tiny.py")
    if not isinstance(config, TrainConfig):
        raise InputError(f"--config: get_config() returns a {type(config).__name__}; it must return a TrainConfig")
    PROCESSES.check()
    data, output = Path(DATA.value), Path(OUTPUT.value)
    if set(str(output.absolute())) & set("*?[]"):
        raise InputError(f"{output}: Orbax cannot write to a path with *, ?, [ or ] in it; choose another --output")
    evaluation = Path(EVALUATION.value) if EVALUATION.value else None
    own = {"command": "train", "output": str(output)}
    read = [data, output, *([evaluation] if evaluation else [])]
    check_json(JSON.value, OVERWRITE.value, read, own if RESUME.value else None)

    tokenizer = Path(TOKENIZER.value) if TOKENIZER.value else None

    from judgelm_jax.stopping import Stopped, listening

    with listening("train", _tell_others) as stopping:
        from judgelm_jax.devices import runtime
        from judgelm_jax.processes.ending import together
        from judgelm_jax.processes.participants import introduce

        with together(PROCESSES.asked("train"), describe):
            runtime.require_devices()
            runtime.enable_compilation_cache()
            introduce()

            if DRY_RUN.value:
                from judgelm_jax.training.rehearsal import rehearse
                from judgelm_jax.training.setup import Sources

                insisted = frozenset(overridden(FLAGS, "model"))
                sources = Sources(data, evaluation, INIT_FROM.value, tokenizer, insisted, DEVICE_MEMORY.value)
                found = rehearse(config, sources)
                if runtime.is_first_process():
                    _report_rehearsal(found)
                    write_json(JSON.value, own | found)
                return

            from judgelm_jax.training.loop import train

            try:
                summary = train(
                    config, data, output, INIT_FROM.value, tokenizer, evaluation, RESUME.value, stopping,
                    overridden(FLAGS, "model"), DEVICE_MEMORY.value, PROFILE.value,
                )  # fmt: skip
            except Stopped as stopped:
                print(f"{output}: {stopped}", file=sys.stderr)
                raise SystemExit(stopped.exit_code) from None
            if runtime.is_first_process():
                _report(summary, output)
                write_json(JSON.value, own | summary)


def _tell_others(line: str, code: int) -> None:
    """Where this is one of several processes: before that module is imported, it is not."""
    tell = getattr(sys.modules.get("judgelm_jax.processes.ending"), "tell", None)
    if tell is not None:
        tell(line, code)


def entry() -> int:
    """The console command."""
    try:
        code = run(main, FLAGS, "train")
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    if "judgelm_jax.processes.ending" in sys.modules:  # JAX was started
        sys.modules["judgelm_jax.processes.ending"].leave(code)
    return code


def _report(summary: dict[str, Any], output: Path) -> None:
    went_on = f", {summary['resumed_from']} of them before" if summary["resumed_from"] else ""
    print(f"trained    {summary['steps']} steps{went_on}; {summary.get('skipped', 0)} skipped as not finite")
    for epoch, counts in summary.get("epochs", {}).items():
        print(f"epoch {epoch + 1:<4} " + ", ".join(f"{_number(value)} {name}" for name, value in counts.items()))
    if summary.get("loss") is not None:
        print(f"loss       {summary['loss']:.4f} nats a target token in the last step")
    for name, title in (("evaluation", "held out"), ("last_evaluation", "at the end")):
        held_out = summary.get(name)
        if held_out is not None and (name == "evaluation" or held_out["step"] != summary["exported_step"]):
            print(
                f"{title:<10} loss {_number(held_out['loss'])}, agreement {held_out['agreement']:.4f}, consistency "
                f"{held_out['consistency']:.4f} on {held_out['records']} records of {held_out['questions']} questions, after "
                f"step {held_out['step']}"
            )
    print(f"output     {output / 'model'}, of step {summary['exported_step']}: {summary['why']}")


def _report_rehearsal(found: dict[str, Any]) -> None:
    for epoch, counts in found["epochs"].items():
        print(f"epoch {epoch + 1:<4} " + ", ".join(f"{_number(value)} {name}" for name, value in counts.items()))
    print(f"program    the step, compiled in {duration(found['compile_seconds'])}")
    room = "" if found["capacity"] is None else f", of {found['capacity'] / 1e9:.2f} GB"
    print(f"memory     {(found['memory'] or 0) / 1e9:.2f} GB in use on a device at most{room}")
    print(f"disk       {found['state_bytes'] / 1e9:.2f} GB a checkpoint")
    print(
        f"time       about {duration(found['seconds'])} for {found['steps']} steps beside evaluations and checkpoints, from "
        f"{found['tried']} steps that were tried"
    )
    print("dry run    nothing was written")


def _number(value: Any) -> str:
    if value is None:
        return "not finite"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
