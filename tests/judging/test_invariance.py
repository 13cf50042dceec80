"""500 real records, judged in many ways: the verdict of each is one and the same, in float32."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import environment

from judgelm_jax import Judge
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.evaluation.benchmarks.pandalm import read_pandalm
from judgelm_jax.judging.config import JudgeConfig

pytestmark = pytest.mark.slow

TOLERANCE = 2e-4  # of the logarithm of a line's probability; measured: see the assertion's message when it fails


@pytest.fixture(scope="module")
def records(shared):
    return read_pandalm(shared / "data" / "benchmarks" / "pandalm").records[:500]


def judged(folder, records, devices, **settings):
    """log P of every line, by the position of the record in `records`, and the most likely one."""
    mesh = make_mesh(MeshConfig.parse("data:-1"), jax.devices()[:devices])
    judge = Judge.load(str(folder), mesh, JudgeConfig(dtype="float32", mode="distribution", **settings))
    rows = judge.prepare(list(enumerate(records)), {}, "forward").prompts
    found = {answer.index: answer.log_probabilities for answer in judge.engine.run(rows)}
    return np.stack([found[index] for index in range(len(records))])


def test_batch_size_input_order_and_mesh_change_no_verdict(shared, records):
    folder = shared / "data" / "checkpoints" / "stories260K-long-hf"
    expected = judged(folder, records, 1, batch_size=32)
    shuffled = np.random.default_rng(0).permutation(len(records))
    runs = {
        "batches of 7, reversed input": judged(folder, records[::-1], 1, batch_size=7)[::-1],
        "batches of 1, shuffled input": judged(folder, [records[i] for i in shuffled], 1, batch_size=1)[np.argsort(shuffled)],
        "two devices": judged(folder, records, 2, batch_size=32),
        "eight devices": judged(folder, records, 8, batch_size=32),
    }
    for name, found in runs.items():
        assert np.abs(found - expected).max() < TOLERANCE, name
        assert (found.argmax(axis=1) == expected.argmax(axis=1)).all(), name


def test_two_processes_write_the_file_of_one(shared, records, tmp_path):
    source = tmp_path / "records.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    model = shared / "data" / "checkpoints" / "stories260K-long-hf"

    def start(output, *flags):
        command = [Path(sys.executable).parent / "judgelm-judge", f"--model={model}", f"--input={source}"]
        command += [f"--output={tmp_path / output}", "--dtype=float32", *flags]
        return subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)

    processes = [start("two.jsonl", f"--shard={part}/2") for part in range(2)] + [start("one.jsonl", "--batch_size=5")]
    assert [process.wait(timeout=580) for process in processes] == [0, 0, 0]
    one, two = (
        [json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in ("one.jsonl", "two.jsonl")
    )
    for row in one + two:
        del row["pred_id"], row["tstamp"]
    assert one == two
    assert len(one) == 500
