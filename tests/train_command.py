"""The training command in processes of its own, and what its runs leave."""

import contextlib
import json
import subprocess
import time

import pytest
import warm_processes
from processes import environment

CONFIG = """
from judgelm_jax.training_config import *

def get_config():
    return TrainConfig(
        model=ModelShape(hidden_size=32, intermediate_size=64, num_layers=2, num_heads=4, num_kv_heads=2, context=256),
        data=DataConfig(length=128, packing=True),
        training=RecipeConfig(epochs=2, batch=8, learning_rate=3e-3),
        computation=ComputationConfig(dtype="float32", mesh="data:-1", remat="none"),
        evaluation=EvaluationConfig(every=6, records=8),
        checkpoints=CheckpointConfig(every=4, keep=2, export_dtype="float32"),
    )
"""


def arguments(files, output, *more):
    return [
        f"--config={files / 'config.py'}",
        f"--data={files / 'train.jsonl'}",
        f"--evaluation={files / 'held-out.jsonl'}",
        f"--tokenizer={files}",
        f"--output={output}",
        *more,
    ]


def start(arguments, devices=1, before="pass"):
    """A process of its own, with so many fake devices; a line of Python may come first."""
    code = f"import sys; {before}; from judgelm_jax.commands.train import entry; sys.exit(entry())"
    return warm_processes.Process(environment(devices), code, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def losses(folder):
    """What a run journalled, without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "tokens_per_second", "tflops", "utilization", "memory_bytes")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def steps_done(output):
    with contextlib.suppress(FileNotFoundError):
        return (output / "metrics.jsonl").read_text().count('"train"')
    return 0


def wait_for(condition, process):
    for _ in range(3000):
        if condition() or process.poll() is not None:
            return
        time.sleep(0.02)
    pytest.fail("it did not come to that")
