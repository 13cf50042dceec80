"""`judgelm-plan` on the command line."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from judgelm_jax.commands import plan
from judgelm_jax.commands.command_line import run

ROOT = Path(__file__).parent.parent.parent
TINY = f"--config={ROOT / 'configs/tiny.py'}"


def refused(capsys, *arguments):
    """The one line with which the command ends."""
    assert run(plan.main, plan.FLAGS, "plan", list(arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--topology=cpu:1"], "give either --config"),
        ([TINY, "--model=7b", "--topology=cpu:1"], "give either --config"),
        ([TINY], "--topology is missing"),
        ([TINY, "--topology=abacus:8"], "names are a100-40gb"),
        ([TINY, "--topology=cpu:1", "--mesh=rows:2"], "is not AXIS:SIZE"),
        (["--config=missing.py", "--topology=cpu:1"], "missing.py"),
        ([TINY, "--topology=cpu:1", "--device_memory=-1"], "must be a positive number of GiB"),
        (["--model=7b", "--topology=cpu:1", "--program=serve"], "--program"),
    ],
)
def test_wrong_input_is_one_line(capsys, arguments, says):
    assert says in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("topology", "module", "extra"), [("h100:8", "jax_cuda13_plugin", "plan-gpu"), ("v5e:2x2", "libtpu", "plan-tpu")]
)
def test_without_the_compiler_a_line_says_what_to_install(capsys, monkeypatch, topology, module, extra):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == module else real(name, *rest))
    assert f"[{extra}]" in refused(capsys, "--model=7b", f"--topology={topology}")


@pytest.mark.slow
def test_a_search_prints_the_best_that_fits(tmp_path):
    output = tmp_path / "plan.json"
    command = [sys.executable, str(ROOT / "launch/plan.py"), TINY, "--topology=cpu:2", "--search", f"--output={output}"]
    sizes = ["--config.data.length=64", "--config.training.batch=4", "--config.model.num_layers=1"]
    done = subprocess.run([*command, *sizes, "--targets=8"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    tried = [line for line in done.stderr.splitlines() if "% of the peak" in line]
    shares = [float(line.split(" % of the peak")[0].split()[-1]) for line in tried]
    assert len(tried) >= 6
    assert 100 * json.loads(output.read_text())["share_of_peak"] == pytest.approx(max(shares), abs=0.06)
