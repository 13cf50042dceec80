"""Starting a command as several processes of this machine, as users do on several hosts."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

# One more line of Python may come first, as to give a process another host's name.
_PROGRAM = "import sys\n{before}\nfrom judgelm_jax.commands.{command} import entry; sys.exit(entry())"
# As for most users TensorBoard's writer finds neither torch nor boto3, which would take seconds to import.
LEAN = "sys.modules |= {'torch': None, 'boto3': None}; import tensorboardX; del sys.modules['torch'], sys.modules['boto3']"
_FLAGS = "--xla_force_host_platform_device_count={} --xla_cpu_enable_concurrency_optimized_scheduler=false"

Process = subprocess.Popen[str]
Ended = tuple[int, str, str]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(command: str, arguments: Sequence[str], devices: int = 2, before: str = "", **environment: str) -> Process:
    """A process of its own, with so many fake devices."""
    own = os.environ | {"XLA_FLAGS": _FLAGS.format(devices), "JAX_PLATFORMS": "cpu"} | environment
    program = [sys.executable, "-c", _PROGRAM.format(before=before, command=command), *arguments]
    return subprocess.Popen(program, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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


def kill_one(processes: Sequence[Process], victim: int) -> tuple[list[Ended], float]:
    """Kills one of the processes; the others, and the seconds until the last of them ended."""
    processes[victim].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    ended = end([process for number, process in enumerate(processes) if number != victim], timeout=120)
    processes[victim].communicate()
    return ended, time.monotonic() - begun
