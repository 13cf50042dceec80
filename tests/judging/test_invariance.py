"""500 real records, each judged in two of many ways: its verdict is one and the same, in float32."""

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

pytestmark = [pytest.mark.slow, pytest.mark.optimized]

TOLERANCE = 2e-4  # of the logarithm of a line's probability; measured: see the assertion's message when it fails


@pytest.fixture(scope="module")
def records(shared):
    """The 490 shortest of 999 records and the 10 longest: each length between is one more program of each way to judge."""
    records = read_pandalm(shared / "data" / "benchmarks" / "pandalm").records
    sizes = [len(record["question_body"]) + len(record["answer1_body"]) + len(record["answer2_body"]) for record in records]
    by_size = np.argsort(sizes, kind="stable")
    return [records[index] for index in sorted([*by_size[:490], *by_size[-10:]])]


def judged(folder, records, wanted, devices, **settings):
    """log P of every line, for the `wanted` of the records in that order."""
    mesh = make_mesh(MeshConfig.parse("data:-1"), jax.devices()[:devices])
    judge = Judge.load(str(folder), mesh, JudgeConfig(dtype="float32", mode="distribution", **settings))
    rows = judge.prepare(list(enumerate(records[index] for index in wanted)), {}, "forward").prompts
    found = {answer.index: answer.log_probabilities for answer in judge.engine.run(rows)}
    return np.stack([found[place] for place in range(len(wanted))])


def test_batch_size_input_order_and_mesh_change_no_verdict(shared, records):
    folder = shared / "data" / "checkpoints" / "stories260K-long-hf"
    every = np.arange(len(records))
    expected = judged(folder, records, every, 1, batch_size=32)
    shuffled = np.random.default_rng(0).permutation(every)
    ways = {
        "batches of 7, reversed input": (np.sort(shuffled[:125])[::-1], 1, 7),
        "batches of 1, shuffled input": (shuffled[125:250], 1, 1),
        "two devices": (np.sort(shuffled[250:375]), 2, 32),
        "eight devices": (np.sort(shuffled[375:]), 8, 32),
    }
    for name, (wanted, devices, batch_size) in ways.items():
        found = judged(folder, records, wanted, devices, batch_size=batch_size)
        assert np.abs(found - expected[wanted]).max() < TOLERANCE, name
        assert (found.argmax(axis=1) == expected[wanted].argmax(axis=1)).all(), name


def test_two_processes_write_the_file_of_one(shared, records, tmp_path):
    source = tmp_path / "records.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records[:100]))
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
    assert len(one) == 100
