"""What the tests of launchers share: tiny inputs of the real commands, and the commands on PATH."""

import os
import sys
from pathlib import Path
from typing import Any

import processes
import yaml
from train_command import CONFIG

from judgelm_jax import laboratory
from judgelm_jax.records.json_lines import dump_line


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
