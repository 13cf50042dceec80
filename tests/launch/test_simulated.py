"""Our launchers with local processes in place of machines: the environment says to each what a cluster would say."""

import contextlib
import http.server
import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port
from launcher_files import container, environment, write_records, write_training

LAUNCH = Path(__file__).parents[2] / "launch"

pytestmark = pytest.mark.slow


def together(commands: list[list[str]], environments: list[dict[str, str]]) -> list[str]:
    """Runs processes at once; gives what each printed."""
    started = [
        subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command, variables in zip(commands, environments, strict=True)
    ]
    printed = [process.communicate(timeout=400)[0] for process in started]
    print(*printed, sep="\n")
    assert [process.returncode for process in started] == [0] * len(started), printed
    return printed


def pods(manifest: str, own: list[str], number: int, **replaced: str) -> tuple[list[list[str]], list[dict[str, str]]]:
    """The commands and environments of the pods of a manifest, with flags of ours in place of those that name files.

    Args:
      replaced: what stands for a text of its arguments here, by the flag.
    """
    pod: dict[str, Any] = container(LAUNCH / "gke" / manifest)
    ours = {flag.partition("=")[0] for flag in own}
    kept = [argument for argument in pod["args"] if argument.partition("=")[0] not in ours]
    kept = [f"{name}={replaced[name[2:]]}" if (name := a.partition("=")[0])[2:] in replaced else a for a in kept]
    from_index = [variable["name"] for variable in pod.get("env", []) if "job-completion-index" in json.dumps(variable)]
    commands, environments = [], []
    for index in range(number):
        variables = dict.fromkeys(from_index, str(index))
        arguments = kept
        for name, value in variables.items():
            arguments = [argument.replace(f"$({name})", value) for argument in arguments]
        commands.append([*pod["command"], *arguments, *own])
        environments.append(environment(**variables))
    return commands, environments


def test_pods_of_gpus_train_together(tmp_path: Path) -> None:
    own = [*write_training(tmp_path, rows=48), f"--output={tmp_path / 'run'}"]
    kept = {"coordinator": f"localhost:{free_port()}", "processes": "2"}
    commands, environments = pods("train-gpu.yaml", [*own, "--init_from="], 2, **kept)
    commands = [[word for word in command if word != "--init_from="] for command in commands]
    printed = together(commands, environments)
    assert "trained " in printed[0]
    assert (tmp_path / "run/model").is_dir()


def test_pods_of_an_indexed_job_judge_a_file_together(tmp_path: Path, laboratory_checkpoint: Path) -> None:
    records, output = write_records(tmp_path, 6), tmp_path / "judgments.jsonl"
    own = [f"--model={laboratory_checkpoint}", f"--input={records}", f"--output={output}"]
    commands, environments = pods("judge-shards.yaml", own, 2)
    commands = [[word.replace("/8", "/2") if word.startswith("--shard") else word for word in command] for command in commands]
    together(commands, environments)
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["question_id"] for row in rows] == [
        json.loads(line)["question_id"] for line in records.read_text().splitlines()
    ]
    assert {row["order"] for row in rows} == {"both"}


# JAX believes to be on a TPU host only where it finds the chips. All else is asked of the environment and of the metadata
# server, as there.
TPU_HOST = """
    import os
    said = os.environ.get("TPU_SKIP_MDS_QUERY")
    import jax._src.clusters.cloud_tpu_cluster as cluster
    cluster.running_in_cloud_tpu_vm = True
    if said is None:
        os.environ.pop("TPU_SKIP_MDS_QUERY", None)  # which JAX sets where it finds no chips
"""

# Two workers; the slice is there at the third question. What installs needs the network and is noted only.
GCLOUD = """
    #!{python}
    import os, pathlib, shutil, subprocess, sys
    place, words = pathlib.Path({place!r}), sys.argv[1:]
    with (place / "calls").open("a") as calls:
        print(" ".join(words).replace("\\n", " "), file=calls)
    workers = [place / f"worker-{{i}}" for i in range(2)]
    if words[2] == "queued-resources":
        asked = place / "asked"
        if words[3] == "create":
            asked.write_text("")
        elif not asked.exists():
            sys.exit(1)
        else:
            asked.write_text(asked.read_text() + "x")
            print("ACTIVE" if len(asked.read_text()) > 2 else "PROVISIONING")
    elif words[3] == "scp":
        for worker in workers:
            worker.mkdir()
            shutil.copyfile(words[4], worker / words[5].partition(":")[2])
    elif "pip install" in words[-1]:
        for worker in workers:
            subprocess.run("mkdir judgelm && tar -xzf judgelm.tar.gz -C judgelm", shell=True, check=True, cwd=worker)
    else:
        command = next(word for word in words if word.startswith("--command=")).partition("=")[2]
        started = []
        for i, worker in enumerate(workers):
            own = dict(os.environ, GCE_METADATA_IP=os.environ["METADATA"].split()[i])
            started.append(subprocess.Popen(["bash", "-c", command], cwd=worker, env=own))
        sys.exit(max(process.wait() for process in started))
"""


@contextlib.contextmanager
def metadata_servers(workers: int) -> Iterator[list[str]]:
    """What tells each host of a TPU slice which one it is; gives their addresses."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = {
                "agent-worker-number": str(servers.index(self.server)),
                "worker-network-endpoints": ",".join(f"unused:{i}:127.0.0.1" for i in range(workers)),
                "tpu-env": "",
            }
            answer = told.get(self.path.rpartition("/")[2])
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write((answer or "").encode())

        def log_message(self, *_: object) -> None:
            pass

    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) for _ in range(workers)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield [f"127.0.0.1:{server.server_port}" for server in servers]
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def tpu_host(tmp_path: Path) -> str:
    """A folder for PYTHONPATH."""
    (tmp_path / "python").mkdir()
    (tmp_path / "python/sitecustomize.py").write_text(textwrap.dedent(TPU_HOST))
    return str(tmp_path / "python")


def test_pods_of_tpus_train_together(tmp_path: Path, tpu_host: str) -> None:
    own = [*write_training(tmp_path, rows=48), f"--output={tmp_path / 'run'}"]
    commands, environments = pods("train-tpu.yaml", [*own, "--init_from="], 2)
    commands = [[word for word in command if word != "--init_from="] for command in commands]
    with metadata_servers(2) as addresses:
        for index, variables in enumerate(environments):
            variables |= {"TPU_WORKER_ID": str(index), "TPU_WORKER_HOSTNAMES": "localhost,localhost", "PYTHONPATH": tpu_host}
            variables |= {"TPU_SKIP_MDS_QUERY": "true", "GCE_METADATA_IP": addresses[index]}
        printed = together(commands, environments)
    assert "trained " in printed[0]
    assert (tmp_path / "run/model").is_dir()


def test_a_tpu_slice_is_asked_for_and_all_its_workers_train_together(tmp_path: Path, tpu_host: str) -> None:
    for folder in ("bin", "files", "cloud"):
        (tmp_path / folder).mkdir()
    gcloud = tmp_path / "bin/gcloud"
    gcloud.write_text(textwrap.dedent(GCLOUD).lstrip().format(python=sys.executable, place=str(tmp_path / "cloud")))
    gcloud.chmod(gcloud.stat().st_mode | stat.S_IXUSR)
    variables = environment(NAME="judge", ZONE="z", TYPE="v5litepod-8", POLL_SECONDS="0.1")
    variables |= {"PATH": f"{tmp_path / 'bin'}:{variables['PATH']}", "PYTHONPATH": tpu_host}
    flags = [*write_training(tmp_path / "files", rows=48), f"--output={tmp_path / 'a run'}"]
    script = [str(LAUNCH / "tpu/run.sh"), "judgelm-train", "--distributed", "--resume", *flags]
    variables.pop("TPU_SKIP_MDS_QUERY", None)  # JAX has set it in this process
    with metadata_servers(2) as addresses:
        variables["METADATA"] = " ".join(addresses)
        done = subprocess.run(["bash", *script], env=variables, capture_output=True, text=True, timeout=400)
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a run/model").is_dir()
    assert (tmp_path / "cloud/worker-1/judgelm/setup.py").is_file()
    calls = (tmp_path / "cloud/calls").read_text().splitlines()
    kinds = [" ".join(call.split()[2:4]) for call in calls if " describe " not in call]
    assert kinds == ["queued-resources create", "tpu-vm scp", "tpu-vm ssh", "tpu-vm ssh"]
    assert all("--worker=all" in call for call in calls if " tpu-vm " in call)
    again = subprocess.run(["bash", *script], env=variables | {"NAME": ""}, capture_output=True, text=True)
    assert again.returncode != 0
    assert "a name for the slice" in again.stderr


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="Slurm itself is here: test_slurm.py")
def test_slurm_is_recognized_by_its_variables(tmp_path: Path) -> None:
    """What the script runs under srun, in the environments of two tasks."""
    own = [*write_training(tmp_path, rows=48), f"--output={tmp_path / 'run'}"]
    line = next(x for x in (LAUNCH / "slurm/train.sh").read_text().splitlines() if x.startswith("srun "))
    command = [word for word in line.partition("||")[0].split()[1:] if not word.startswith("--kill")]
    command = [*command[: command.index('"$@"')], *own]
    step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    environments = [environment(**step, SLURM_PROCID=str(i), SLURM_LOCALID=str(i)) for i in range(2)]
    printed = together([command] * 2, environments)
    assert "trained " in printed[0]
