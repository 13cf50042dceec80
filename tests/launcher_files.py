"""What the tests of launchers share: tiny inputs of the real commands, and the commands on PATH."""

import os
import sys
from pathlib import Path
from typing import Any

import processes
import yaml

from judgelm_jax import laboratory
from judgelm_jax.records import dump_line

CONFIG = """
from judgelm_jax.training_config import *

def get_config():
    return TrainConfig(
        model=ModelShape(hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2, context=256),
        data=DataConfig(length=128, packing=True),
        training=RecipeConfig(epochs=2, batch=8, learning_rate=3e-3),
        computation=ComputationConfig(dtype="float32", mesh="data:-1", remat="none"),
        checkpoints=CheckpointConfig(every=4, keep=2, export_dtype="float32"),
    )
"""


def write_training(folder: Path, rows: int) -> list[str]:
    """The flags of a training of seconds, without --output."""
    laboratory.write_tokenizer(folder, sentences=True)
    (folder / "config.py").write_text(CONFIG)
    lines = (dump_line(row) + "\n" for row in laboratory.training_records(rows, seed=1))
    (folder / "train.jsonl").write_text("".join(lines))
    return [f"--config={folder / 'config.py'}", f"--data={folder / 'train.jsonl'}", f"--tokenizer={folder}"]


def write_records(folder: Path, count: int) -> Path:
    lines = (dump_line(pair.record) + "\n" for pair in laboratory.make_pairs(count, seed=3))
    (folder / "records.jsonl").write_text("".join(lines))
    return folder / "records.jsonl"


def environment(**more: str) -> dict[str, str]:
    """One device a process, and the commands of this installation."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return processes.environment(PATH=path, **more)


def jobs(manifest: Path) -> list[dict[str, Any]]:
    """The Jobs of a manifest; what JobSet makes of its templates is one, too."""
    found = []
    for document in yaml.safe_load_all(manifest.read_text()):
        if document["kind"] == "JobSet":
            for replicated in document["spec"]["replicatedJobs"]:
                name = {"name": f"{document['metadata']['name']}-{replicated['name']}-0"}
                found.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": name, **replicated["template"]})
        else:
            found.append(document)
    return found


def container(manifest: Path) -> dict[str, Any]:
    (job,) = jobs(manifest)
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return only
