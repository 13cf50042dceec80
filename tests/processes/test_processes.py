"""Processes of one run that only meet: who is waited for, what must agree, and how all end when one does."""

import os
import signal
import subprocess
import time

import pytest
from free_ports import free_port
from processes import environment
from several_processes import end
from warm_processes import Process

from judgelm_jax.errors import InputError, PeerError
from judgelm_jax.processes import joining
from judgelm_jax.processes.process_flags import Asked
from judgelm_jax.processes.watching import Watch

# `say` replaces what a process does when all have come.
PROGRAM = """
import os, socket, sys, time
own, count, port, seconds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
{before}
from judgelm_jax.processes import ending as processes
from judgelm_jax.processes.agreement import compare
from judgelm_jax.commands.command_line import describe
from judgelm_jax.errors import InputError
from judgelm_jax.processes.process_flags import Asked
asked = Asked("meet", "127.0.0.1:" + port, count, own, seconds) if port != "cluster" else Asked("meet", seconds=seconds)
code = 0
try:
    with processes.together(asked, describe):
        print("all here", flush=True)
        {work}
except InputError as error:
    print("judgelm-meet:", error, file=sys.stderr)
    code = error.exit_code
processes.leave(code)
"""


def meet(own, count, port, work="pass", before="", seconds=60, **more):
    program = PROGRAM.format(before=before, work=work)
    arguments = [str(own), str(count), str(port), str(seconds)]
    return Process(environment(**more), program, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def all_meet(count, work="pass", before="", **more):
    port = free_port()
    return [meet(own, count, port, work, before, **more) for own in range(count)]


def assert_one_line(err, *parts):
    lines = [line for line in err.splitlines() if "waiting for" not in line]
    assert len(lines) == 1, err
    assert lines[0].startswith("judgelm-meet: ")
    for part in parts:
        assert part in lines[0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("here", 2, 0), "must be HOST:PORT"),
        (("a:0", 2, 0), "must be HOST:PORT"),
        (("a:1234567", 2, 1), "must be HOST:PORT"),
        (("a:1234", 2, 2), "--process=2: must be below --processes=2"),
        ((None, None, None), "no cluster is found"),
    ],
)
def test_wrong_arguments_are_named(given, said):
    with pytest.raises(InputError, match=said):
        joining.join(Asked("meet", *given, seconds=1), Watch("meet", 1))


@pytest.mark.parametrize(
    "variables",
    [
        {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911", "OMPI_COMM_WORLD_SIZE": "many"},
        {"OMPI_MCA_orte_hnp_uri": "nothing"},
    ],
)
def test_a_cluster_whose_variables_do_not_fit_is_named(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="--distributed: the cluster does not say who is who"):
        joining.join(Asked("meet", seconds=1), Watch("meet", 1))


def test_process_0_that_does_not_answer_is_named_and_its_loopback_explained():
    with pytest.raises(PeerError, match=r"process 0 does not answer there, which means this host, .*, itself .* after 1 s"):
        joining.join(Asked("meet", f"127.0.0.1:{free_port()}", 2, 1, seconds=1), Watch("meet", 1))


@pytest.mark.parametrize(("host", "itself"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False)])
def test_addresses_that_mean_a_host_itself(host, itself):
    assert joining._is_loopback(host) == itself


@pytest.mark.slow
def test_meetings_that_end_well_and_others():
    """Several runs at the same time, as most of their time is waiting."""
    well = all_meet(3, "compare('the run', {'a': [1, 2]})")
    differing = all_meet(
        2,
        "compare('the run', {'--seed': own, '--mode': 'scores'})",
        "socket.gethostname = lambda: 'host-' + str(own)\nfrom judgelm_jax.processes import joining\n"
        "joining._refuse_loopback = lambda here: None",
    )
    versions = all_meet(
        2,
        before="import importlib.metadata as m\nreal = m.version\n"
        "if own: m.version = lambda name: '9.9' if name == 'flax' else real(name)",
    )
    loopback = all_meet(2, before="socket.gethostname = lambda: 'host-' + str(own)")
    failing = all_meet(3, "if own == 1: raise InputError('the disk is full')\n        time.sleep(60)")

    surprised = all_meet(2, "1 / own\n        time.sleep(60)")

    for code, out, err in end(well):
        assert (code, out, err) == (0, "all here\n", "")
    for code, _, err in end(differing):
        assert code == 2
        assert_one_line(err, "differ in the run: --seed is 1 in process 1 on host-1 and 0 in process 0 on host-0; give all")
    for code, _, err in end(versions):
        assert code == 2
        assert_one_line(err, "differ in the versions of packages", "flax is 9.9 in process 1 on")
    for code, _, err in end(loopback):
        assert code == 2
        assert_one_line(err, "means that host itself, and the processes are on 2 hosts (host-0, host-1)")
    for own, (code, _, err) in enumerate(end(failing)):
        assert code == 2
        assert_one_line(err, "the disk is full", *([] if own == 1 else ["process 1 on "]))
    (code, _, err), (other_code, _, other_err) = end(surprised)
    assert (code, other_code) == (1, 1)
    assert err.startswith("Traceback")
    assert err.endswith("ZeroDivisionError: division by zero\n")
    assert_one_line(other_err, "process 0 on ", "division by zero")


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_a_lost_process_ends_all_without_a_native_trace(victim):
    together = all_meet(3, "time.sleep(300)")
    for process in together:
        assert process.stdout.readline() == "all here\n"
    together[victim].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    others = end([process for number, process in enumerate(together) if number != victim], timeout=90)
    seconds = time.monotonic() - begun
    together[victim].kill()
    together[victim].communicate()
    assert seconds < 60
    for code, _, err in others:
        assert code == 3
        assert_one_line(err, f"process {victim} on ", "was lost", "run the same command again with --resume")


@pytest.mark.slow
def test_open_mpi_and_slurm_say_who_is_who():
    number = str(os.getpid() * 4096)
    ompi = [
        meet(
            own, 2, "cluster", OMPI_MCA_orte_hnp_uri=f"{number}.0;tcp://127.0.0.1:34911", OMPI_COMM_WORLD_SIZE="2",
            OMPI_COMM_WORLD_RANK=str(own), OMPI_COMM_WORLD_LOCAL_RANK=str(own),
        )
        for own in range(2)
    ]  # fmt: skip
    slurm = [
        meet(
            own, 2, "cluster", SLURM_JOB_ID=str(os.getpid() + 1), SLURM_STEP_NODELIST="localhost", SLURM_NTASKS="2",
            SLURM_PROCID=str(own), SLURM_LOCALID=str(own),
        )
        for own in range(2)
    ]  # fmt: skip
    for code, out, err in end([*ompi, *slurm]):
        assert (code, out, err) == (0, "all here\n", "")
