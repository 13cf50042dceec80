"""trains small judges with and without each training technique, and measures what each technique does.

The bias laboratory: questions about facts, some of which only a reference tells, and a teacher biased to the first answer.
For each seed four judges are trained from random weights: with no technique, then with swap augmentation, reference support
and reference drop, one after the other. Each judges held-out pairs in both orders, without and with reference. The tables say
agreement, consistency and biases with intervals, beside the published numbers, and whether the claims of the paper hold.

  judgelm-ablate --output=runs/ablation            # 3 seeds, about half an hour on two CPU cores
  judgelm-ablate --output=runs/ablation --quick    # 1 seed

After a kill, the same command goes on; with more --seeds, it adds those. What was trained and judged stays as it is.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from judgelm_jax.commands.command_line import check_json, run, write_json
from judgelm_jax.errors import InputError
from judgelm_jax.records.json_lines import Record, read_jsonl
from judgelm_jax.records.output_files import write_atomically
from judgelm_jax.training_config import TrainConfig

FLAGS = flags.FlagValues()

OUTPUT = flags.DEFINE_string("output", None, "the folder for everything that is made", required=True, flag_values=FLAGS)
SEEDS = flags.DEFINE_integer(
    "seeds", 3, "of data and of weights; four judges are trained for each", lower_bound=1, flag_values=FLAGS
)
QUICK = flags.DEFINE_boolean("quick", False, "one seed: intervals over records only", flag_values=FLAGS)
PAIRS = flags.DEFINE_integer("pairs", 512, "held-out pairs of each seed", lower_bound=8, flag_values=FLAGS)
STEPS = flags.DEFINE_integer(
    "steps", 0, "end each training after this many steps, to try the way; 0: all", lower_bound=0, flag_values=FLAGS
)
JSON = flags.DEFINE_string("json", None, "also write all numbers as JSON to this file", flag_values=FLAGS)
OVERWRITE = flags.DEFINE_boolean("overwrite", False, "replace the file of --json if it exists", flag_values=FLAGS)
config_flags.DEFINE_config_file(
    "config",
    None,
    "another recipe than the laboratory's own (configs/bias_lab.py); its techniques are ignored",
    flag_values=FLAGS,
)

_MANIFEST = "laboratory.json"  # tells an ablation from a folder of the user's, and this one from another


@dataclasses.dataclass(frozen=True)
class _Training:
    """One judge: its folder in that of the seed, the row of the table, and the techniques of its training."""

    folder: str
    technique: str
    swap_augmentation: float
    reference_support: bool
    reference_drop: float


def main() -> None:
    if QUICK.value and FLAGS["seeds"].present:
        raise InputError("--quick is one seed; leave out --seeds")
    config = _config()
    seeds = range(1 if QUICK.value else SEEDS.value)
    folder = Path(OUTPUT.value)
    own = {"command": "ablate", "output": str(folder)}
    check_json(JSON.value, OVERWRITE.value, [folder], own)  # the same command always goes on
    _claim(folder, config)

    from judgelm_jax.devices.runtime import enable_compilation_cache, require_devices

    require_devices()
    enable_compilation_cache()

    from judgelm_jax.stopping import Stopped

    try:
        runs = list(_seeds(folder, seeds, config))
    except Stopped as stopped:
        print(f"judgelm-ablate: stopped; run the same command again to go on in {folder}", file=sys.stderr)
        raise SystemExit(stopped.exit_code) from None
    write_json(JSON.value, own | _report(folder, runs))


def entry() -> int:
    """The console command."""
    return run(main, FLAGS, "ablate")


def _config() -> TrainConfig:
    from judgelm_jax import training_config
    from judgelm_jax.laboratory.recipe import get_config

    config = get_config() if FLAGS.config is None else FLAGS.config
    if not isinstance(config, TrainConfig):
        raise InputError(f"--config: get_config() returns a {type(config).__name__}; it must return a TrainConfig")
    training_config.check(config)
    if STEPS.value:
        config.training.steps = STEPS.value
    return config


def _claim(folder: Path, config: TrainConfig) -> None:
    """Makes the folder, or checks that what lies in it was made in the same way."""
    manifest = json.loads(json.dumps({"pairs": PAIRS.value, "config": dataclasses.asdict(config)}))
    path = folder / _MANIFEST
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != manifest:
            raise InputError(f"{folder}: holds an ablation with another --pairs, --steps or --config; choose another --output")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists and is no ablation; choose another --output")
    with write_atomically(path) as file:
        json.dump(manifest, file, indent=1)


def _trainings() -> list[_Training]:
    from judgelm_jax.laboratory.ablation import DROP, NONE, SUPPORT, SWAP

    return [
        _Training("none", NONE, 0.0, False, 0.0),
        _Training("swap-augmentation", SWAP, 0.5, False, 0.0),
        _Training("reference-support", SUPPORT, 0.5, True, 0.0),
        _Training("reference-drop", DROP, 0.5, True, 0.5),
    ]


def _seeds(folder: Path, seeds: range, config: TrainConfig) -> Iterator[Any]:
    """The outcomes of each seed, as they get done."""
    from judgelm_jax import laboratory
    from judgelm_jax.laboratory.ablation import Cell, SeedOutcomes

    start = time.perf_counter()
    trainings = _trainings()
    for seed in seeds:
        own = folder / f"seed-{seed}"
        pairs = laboratory.make_pairs(PAIRS.value, seed)
        _write_data(own, pairs, seed, config)
        winners = {}
        for number, training in enumerate(trainings):
            judged = [own / f"{training.folder}-judged-{name}-reference.jsonl" for name in ("without", "with")]
            began = time.perf_counter()
            if not all(path.is_file() for path in judged):
                _train(own, training, seed, config)
                for reference, path in enumerate(judged):
                    _judge(own / training.folder / "model", pairs, bool(reference), path)
                seconds = time.perf_counter() - began
                place = f"{seed * len(trainings) + number + 1}/{len(seeds) * len(trainings)}"
                print(
                    f"{place} seed {seed}, {training.technique}: trained and judged in {seconds:.0f} s, "
                    f"{(time.perf_counter() - start) / 60:.1f} min in all",
                    flush=True,
                )
            for reference, path in enumerate(judged):
                rows = [row for _, row in read_jsonl(path)]
                winners[Cell(training.technique, bool(reference))] = [
                    (row["forward"]["winner"], row["reversed"]["winner"]) for row in rows
                ]
        yield SeedOutcomes(seed, [laboratory.winner(pair) for pair in pairs], [pair.needs_reference for pair in pairs], winners)


def _write_data(own: Path, pairs: list, seed: int, config: TrainConfig) -> None:
    """The files of a seed: training records, held-out pairs, their labels, and the judge before its training."""
    from judgelm_jax import laboratory
    from judgelm_jax.laboratory.recipe import TRAINING_RECORDS

    laboratory.write_records(own / "held-out.jsonl", [pair.record for pair in pairs])
    laboratory.write_records(own / "labels.jsonl", [laboratory.label(pair) for pair in pairs])
    if not (own / "training.jsonl").is_file():
        laboratory.write_pupil(own / "untrained", seed, config.model)
        records: Iterator[Record] = laboratory.training_records(TRAINING_RECORDS, seed, pairs)
        laboratory.write_records(own / "training.jsonl", records)


def _train(own: Path, training: _Training, seed: int, config: TrainConfig) -> None:
    from judgelm_jax.training.loop import train

    techniques = {name: getattr(training, name) for name in ("swap_augmentation", "reference_support", "reference_drop")}
    own_config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **techniques),
        training=dataclasses.replace(config.training, seed=seed),
    )
    output = own / training.folder
    train(own_config, own / "training.jsonl", output, init_from=str(own / "untrained"), resume=True)


def _judge(model: Path, pairs: list, reference: bool, path: Path) -> None:
    from judgelm_jax import laboratory
    from judgelm_jax.judging.config import JudgeConfig
    from judgelm_jax.judging.judge import Judge

    settings = JudgeConfig(mode="scores", orders="both", reference="required" if reference else "none", dtype="float32")
    judge = Judge.load(str(model), settings=settings, model_id=model.parent.name)
    laboratory.write_records(path, (judgment.row for judgment in judge.judge(pair.record for pair in pairs)))


def _report(folder: Path, runs: list) -> dict[str, Any]:
    from judgelm_jax.laboratory import ablation, ablation_report

    summary = ablation.summarize(runs)
    table = ablation_report.text(summary)
    for name, content in (("table.txt", table + "\n"), ("table.md", ablation_report.markdown(summary))):
        with write_atomically(folder / name) as file:
            file.write(content)
    ablation.save(summary, folder / "ablation.json")
    ablation_report.plot(summary, folder / "ablation.png")
    print(f"\n{table}\n\nThe tables, all numbers and a plot: {folder}/table.txt, table.md, ablation.json, ablation.png")
    return summary
