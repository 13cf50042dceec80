"""Starting a command as several processes of this machine, as users do on several hosts."""

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from free_ports import free_port
from processes import environment
from warm_processes import Process

# One more line of Python may come first, as to give a process another host's name.
_PROGRAM = "import sys\n{before}\nfrom judgelm_jax.commands.{command} import entry; sys.exit(entry())"
# Several runs of a command, one after the other, in processes that came together once: starting them is most of the time.
_IN_TURN = """
import contextlib, io, json, pathlib, sys
from judgelm_jax.commands import {command} as module
from judgelm_jax.commands.command_line import describe, run
from judgelm_jax.processes.process_flags import Asked
from judgelm_jax.processes import ending, store
own, count, address, told = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], pathlib.Path(sys.argv[4])
code = 0
with ending.together(Asked("{command}", address, count, own), describe):
    for number, arguments in enumerate(json.loads(sys.argv[5])):
        store._PREFIX = f"run-{{number}}"  # its names are good once
        with contextlib.redirect_stdout(io.StringIO()) as out:
            code = code or run(module.main, module.FLAGS, "{command}", arguments)
        (told / f"{{own}}-{{number}}").write_text(out.getvalue())
ending.leave(code)
"""

Ended = tuple[int, str, str]


def start(command: str, arguments: Sequence[str], devices: int = 2, before: str = "", **more: str) -> Process:
    """A process of its own, with so many fake devices."""
    return _start(_PROGRAM.format(before=before, command=command), arguments, devices, **more)


def _start(program: str, arguments: Sequence[str], devices: int, **more: str) -> Process:
    return Process(environment(devices, **more), program, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def start_together(command: str, arguments: Sequence[str], count: int, devices: int = 2, before: str = "") -> list[Process]:
    """`count` processes of one run."""
    flags = [f"--coordinator=127.0.0.1:{free_port()}", f"--processes={count}"]
    return [start(command, [*arguments, *flags, f"--process={number}"], devices, before) for number in range(count)]


def end(processes: Sequence[Process], timeout: float = 300) -> list[Ended]:
    """Exit code, stdout and stderr of each."""
    found = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=timeout)
            # The library of collectives on CPUs prints that it is connected.
            own = [line for line in out.splitlines(keepends=True) if not line.startswith("[Gloo]")]
            found.append((process.returncode, "".join(own), err))
    finally:
        for process in processes:
            process.kill()
    return found


def run_together(command: str, arguments: Sequence[str], count: int, devices: int = 2, before: str = "") -> list[Ended]:
    """Runs `count` processes to their end, which must be a good one."""
    ended = end(start_together(command, arguments, count, devices, before))
    assert [code for code, _, _ in ended] == [0] * count, "\n".join(err for _, _, err in ended)
    return ended


def run_in_turn(command: str, runs: Sequence[Sequence[str]], count: int, devices: int = 2) -> list[tuple[list[str], str]]:
    """What each of `count` processes prints in each of the runs, which must end well, and in all of them on stderr."""
    program, address = _IN_TURN.format(command=command), f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory() as told:
        arguments = [str(count), address, told, json.dumps(runs)]
        ended = end([_start(program, [str(own), *arguments], devices) for own in range(count)])
        assert [code for code, _, _ in ended] == [0] * count, "\n".join(err for _, _, err in ended)
        printed = [[(Path(told) / f"{own}-{number}").read_text() for number in range(len(runs))] for own in range(count)]
    return [(out, err) for out, (_, _, err) in zip(printed, ended, strict=True)]


def kill_one(processes: Sequence[Process], victim: int) -> tuple[list[Ended], float]:
    """Kills one of the processes; the others, and the seconds until the last of them ended."""
    processes[victim].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    ended = end([process for number, process in enumerate(processes) if number != victim], timeout=120)
    processes[victim].communicate()
    return ended, time.monotonic() - begun
