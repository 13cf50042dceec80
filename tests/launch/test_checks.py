"""What stands in `launch/` is well-formed by the tools of each form, and gives the commands flags that they have."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from launcher_files import container, jobs

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted(LAUNCH.rglob("*.sh"))
MANIFESTS = sorted(LAUNCH.rglob("*.yaml"))
KUBERNETES = "1.31"


def tool(name: str) -> str:
    """A program that pip installed beside this Python, or in the environment that it shares."""
    found = shutil.which(name) or shutil.which(name, path=":".join([str(Path(sys.executable).parent), *_scripts()]))
    assert found is not None, f"{name} is not installed: pip install 'judgelm-jax[test]'"
    return found


def _scripts() -> list[str]:
    return [str(Path(place).parents[2] / "bin") for place in sys.path if place.endswith("site-packages")]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_sound_and_say_how_they_are_used(script: Path) -> None:
    checked = subprocess.run([tool("shellcheck"), "-x", str(script)], cwd=LAUNCH.parent, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    head = script.read_text().splitlines()[:4]
    assert any(line.startswith("# Usage: ") for line in head)
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("name", ["quickstart.sh", "test.sh"])
def test_a_wrong_python_makes_no_environment(name: str, tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir()
    script = shutil.copy(LAUNCH / name, tmp_path / "launch")
    shutil.copy(LAUNCH / "environment.sh", tmp_path / "launch")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.13.0\nexit 1\n')
    python.chmod(0o755)
    done = subprocess.run(["bash", script], env=os.environ | {"PYTHON": str(python)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{python}: Python 3.13.0, and judgelm_jax needs 3.11 or 3.12; set PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_shellcheck_would_notice(tmp_path: Path) -> None:
    (tmp_path / "a.sh").write_text("#!/usr/bin/env bash\nrm -rf $1/*\n")
    assert subprocess.run([tool("shellcheck"), str(tmp_path / "a.sh")], capture_output=True).returncode == 1


def test_the_dockerfile_is_sound_and_copies_what_exists() -> None:
    checked = subprocess.run([tool("hadolint"), str(LAUNCH / "Dockerfile")], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")
    copied = re.findall(r"^COPY (.+) \S+$", (LAUNCH / "Dockerfile").read_text(), re.MULTILINE)
    assert all((LAUNCH.parent / name).exists() for line in copied for name in line.split())


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)
def test_manifests_fit_the_schema_of_kubernetes(manifest: Path) -> None:
    assert manifest.read_text().splitlines()[1].startswith("# Use: ")
    for job in jobs(manifest):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)
        assert job["spec"]["completionMode"] == "Indexed"
        assert job["spec"]["completions"] == job["spec"]["parallelism"]
        mounts = {mount["name"] for mount in container(manifest)["volumeMounts"]}
        assert mounts == {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}


def test_the_schema_would_notice() -> None:
    (job,) = jobs(LAUNCH / "gke/judge-shards.yaml")
    job["spec"]["parallel"] = 8
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


def test_numbers_of_pods_agree() -> None:
    (shards,), (workers,) = jobs(LAUNCH / "gke/judge-shards.yaml"), jobs(LAUNCH / "gke/train-gpu.yaml")
    assert (
        f"--shard=$(JOB_COMPLETION_INDEX)/{shards['spec']['completions']}"
        in container(LAUNCH / "gke/judge-shards.yaml")["args"]
    )
    assert f"--processes={workers['spec']['completions']}" in container(LAUNCH / "gke/train-gpu.yaml")["args"]
    # JobSet names pods JOBSET-JOB-INDEX-POD.JOBSET
    document = yaml.safe_load((LAUNCH / "gke/train-gpu.yaml").read_text())
    name, job = document["metadata"]["name"], document["spec"]["replicatedJobs"][0]["name"]
    port = container(LAUNCH / "gke/train-gpu.yaml")["ports"][0]["containerPort"]
    assert f"--coordinator={name}-{job}-0-0.{name}:{port}" in container(LAUNCH / "gke/train-gpu.yaml")["args"]


def commands() -> list[tuple[str, str]]:
    """Every flag that a launcher gives a command, or its usage tells to give it."""
    found = set()
    for script in SCRIPTS:
        if script.parent != LAUNCH:
            lines = script.read_text().replace("\\\n", " ").splitlines()
            command = next(name for line in lines for name in re.findall(r"judgelm-(\w+) ", line) if "job-name" not in line)
            given = [line for line in lines if line.startswith("# Usage") or f"judgelm-{command} --" in line]
            for line in given:
                after = line.partition(script.name)[2] if line.startswith("# Usage") else line
                found |= {
                    (command, flag) for flag in re.findall(r" --(\w+)", after.partition(f"judgelm-{command}")[2] or after)
                }
    for manifest in MANIFESTS:
        command = container(manifest)["command"][0].removeprefix("judgelm-")
        found |= {(command, arg.removeprefix("--").partition("=")[0]) for arg in container(manifest)["args"]}
    return sorted(found)


@pytest.mark.parametrize(("command", "flag"), commands())
def test_launchers_give_flags_that_the_command_has(command: str, flag: str) -> None:
    assert flag in importlib.import_module(f"judgelm_jax.commands.{command}").FLAGS
