"""Our scripts in a real Slurm of one node: submitted, stopped, requeued by themselves, finished."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from free_ports import free_port
from launcher_files import environment, write_records, write_training

from judgelm_jax.checkpoints import open_checkpoint

SCRIPTS = Path(__file__).parents[2] / "launch/slurm"
DAEMONS = ("munged", "slurmctld", "slurmd")
SECONDS = 480  # with other tests beside

pytestmark = pytest.mark.slow

SLURM_CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# a requeued job waits until its credential is no longer good: 120 s else
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A cluster of one node; gives the environment in which its commands, and ours, are found."""
    missing = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs Slurm ({', '.join(missing) or 'and root'}): apt install slurmctld slurmd slurm-client munge")
    folder = tmp_path_factory.mktemp("slurm")
    for path in (folder, *list(folder.parents)[:2]):  # of which munge asks that others may pass
        path.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    conf = SLURM_CONF.format(folder=folder, host=host, ports=[free_port(), free_port()])
    (folder / "slurm.conf").write_text(conf)
    variables = environment(SLURM_CONF=str(folder / "slurm.conf"), PYTHONUNBUFFERED="1")
    variables["PATH"] += ":/usr/sbin"
    files = [f"--{name}={folder / name}" for name in ("munge.key", "munge.socket", "munge.pid", "munge.log", "munge.seed")]
    keys = ("key-file", "socket", "pid-file", "log-file", "seed-file")
    munged = ["munged", "--force", "--foreground"]
    munged += [f"--{key}={file.partition('=')[2]}" for key, file in zip(keys, files, strict=True)]
    daemons = []
    try:
        for command in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D"]):
            log = (folder / f"{command[0]}.out").open("w")
            daemons.append(subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True))
            time.sleep(1)
        until(lambda: "idle" in call(variables, "sinfo", "--noheader", "--format=%t"), 30, "the node is not idle")
        yield variables
    finally:
        subprocess.run(["scancel", "--state=RUNNING"], env=variables, capture_output=True)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def call(variables: dict[str, str], *command: str) -> str:
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    return done.stdout if done.returncode == 0 else done.stderr


def until(true: Callable[[], bool], seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise
        time.sleep(0.2)


def submit(variables: dict[str, str], log: Path, script: str, *arguments: str) -> str:
    """The id of the job."""
    told = call(variables, "sbatch", "--parsable", f"--output={log}", *arguments[:1], str(SCRIPTS / script), *arguments[1:])
    assert re.fullmatch(r"\d+\n", told), told
    return told.strip()


def jobs(variables: dict[str, str], job: str) -> list[dict[str, str]]:
    """What Slurm knows of a job, or of each of its array."""
    shown = call(variables, "scontrol", "--oneliner", "show", "job", job)
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in shown.splitlines()]


def finished(variables: dict[str, str], job: str) -> bool:
    states = {each.get("JobState", "") for each in jobs(variables, job)}
    assert not states & {"FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT"}, states
    return states == {"COMPLETED"}


def first_line(shard: Path, variables: dict[str, str], job: str) -> bytes:
    """The first line of a part of the judgments, as soon as it is there, which is before the job is done."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            line, newline, _ = shard.read_bytes().partition(b"\n")
            if newline:
                return line
        assert not finished(variables, job), "the job was done before its first line was seen"
        time.sleep(0.1)
    raise AssertionError("nothing was judged")


def steps(run: Path) -> list[int]:
    try:
        lines = (run / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [line["step"] for line in map(json.loads, lines) if line["kind"] == "train"]


def test_a_training_that_is_stopped_saves_is_requeued_and_finishes(slurm: dict[str, str], tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    flags = write_training(tmp_path, rows=400)
    job = submit(slurm, log, "train.sh", "--ntasks-per-node=2", *flags, f"--output={run}")
    until(lambda: len(steps(run)) >= 3, SECONDS, "no step was made")
    call(slurm, "scancel", "--signal=TERM", job)  # as --signal does before the end of the time
    until(lambda: finished(slurm, job), SECONDS, "the job did not finish")
    told = log.read_text()
    print(told)
    assert [each["Restarts"] for each in jobs(slurm, job)] == ["1"], told
    made = steps(run)
    assert made == list(range(1, len(made) + 1))
    assert f"trained    {len(made)} steps, " in told
    assert "them before" in told  # it went on
    assert open_checkpoint(str(run / "model")).config.hidden_size == 32


def test_a_killed_part_of_an_array_is_requeued_and_the_last_one_joins_all(
    slurm: dict[str, str], tmp_path: Path, laboratory_checkpoint: Path
) -> None:
    output = tmp_path / "judgments.jsonl"
    records = write_records(tmp_path, 96)  # some seconds for the kill
    explain = ["--mode=explain", "--batch_size=2", "--max_new_tokens=128"]
    flags = [f"--model={laboratory_checkpoint}", f"--input={records}", f"--output={output}", *explain]
    job = submit(slurm, tmp_path / "log-%a", "judge_shards.sh", "--array=3-4", *flags)
    shard = tmp_path / "judgments.jsonl.partial/shard-00001-of-00002.jsonl"
    kept = first_line(shard, slurm, job).partition(b"\t")[2]
    os.kill(process_of("--shard=1/2", output), signal.SIGKILL)
    until(lambda: finished(slurm, job), SECONDS, "the jobs did not finish")
    for number in (3, 4):
        print((tmp_path / f"log-{number}").read_text())
    assert sorted(each["Restarts"] for each in jobs(slurm, job)) == ["0", "1"]
    rows = output.read_bytes().splitlines()
    assert kept in rows  # with its time: it was not judged again
    ids = [json.loads(row)["question_id"] for row in rows]
    assert ids == [json.loads(line)["question_id"] for line in records.read_text().splitlines()]


def test_a_job_of_several_processes_that_loses_one_is_requeued_and_finishes(
    slurm: dict[str, str], tmp_path: Path, laboratory_checkpoint: Path
) -> None:
    output = tmp_path / "judgments.jsonl"
    records = write_records(tmp_path, 16)  # two processes in lockstep: some seconds for the kill
    explain = ["--mode=explain", "--batch_size=2", "--max_new_tokens=64"]
    flags = [f"--model={laboratory_checkpoint}", f"--input={records}", f"--output={output}", *explain]
    job = submit(slurm, tmp_path / "log", "judge.sh", "--ntasks-per-node=2", *flags)
    shard = tmp_path / "judgments.jsonl.partial/shard-00000-of-00001.jsonl"
    kept = first_line(shard, slurm, job).partition(b"\t")[2]
    os.kill(process_of("--distributed", output), signal.SIGKILL)
    until(lambda: finished(slurm, job), SECONDS, "the job did not finish")
    told = (tmp_path / "log").read_text()
    print(told)
    assert [each["Restarts"] for each in jobs(slurm, job)] == ["1"]
    assert "was lost (its connection closed); run the same command again with --resume to go on" in told
    assert "Traceback" not in told
    rows = output.read_bytes().splitlines()
    assert kept in rows  # with its time: it was not judged again
    ids = [json.loads(row)["question_id"] for row in rows]
    assert ids == [json.loads(line)["question_id"] for line in records.read_text().splitlines()]


def test_bad_input_is_not_tried_again(slurm: dict[str, str], tmp_path: Path, laboratory_checkpoint: Path) -> None:
    flags = [f"--model={laboratory_checkpoint}", f"--input={tmp_path / 'absent'}", f"--output={tmp_path / 'b'}"]
    job = submit(slurm, tmp_path / "log", "judge_shards.sh", "--array=0-0", *flags)
    until(lambda: jobs(slurm, job)[0]["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), SECONDS, "it does not end")
    (ended,) = jobs(slurm, job)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "2:0", "0")


def process_of(*parts: object) -> int:
    """The process whose command line holds these, as arguments or at the end of one."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "python" in words[0] and all(any(word.endswith(str(part)) for word in words) for part in parts):
            return int(place.parent.name)
    raise AssertionError(f"no process with {parts}")
