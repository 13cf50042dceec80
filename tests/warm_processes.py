"""Python processes that are forked from one that has imported JAX and its companions already: two seconds of each are imports.

```
test ─ caller (as `python ARGUMENTS`, with its stdin, stdout, stderr) ─ socket ─ server ─ fork ─ worker
```
The caller ends as the worker does, of its signal or with its code; where the caller dies, so does the worker. What a command
does before it has imported anything is not to be seen in them: tests of starting and of signals there start real processes.

JAX reads variables of the environment when it is imported, so there is a server for each set of JAX_*. No server has touched a
device, or started a thread.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_IMPORTED = (
    "flax.nnx",
    "gguf",
    "grain",
    "huggingface_hub",
    "jax.experimental.multihost_utils",
    "matplotlib.figure",
    "ml_collections",
    "optax",
    "orbax.checkpoint.experimental.v1",
    "safetensors.numpy",
    "scipy.optimize",
    "scipy.stats",
    "sentencepiece",
    "tensorstore",
    "tokenizers",
    "transformers",
)
_CALLER = (sys.executable, "-IS", str(Path(__file__).resolve()))
_servers: dict[str, "_Server"] = {}


class _Server:
    def __init__(self, environment: Mapping[str, str]):
        self.folder = tempfile.mkdtemp(prefix="warm-")
        self.address = f"{self.folder}/socket"
        command = [sys.executable, __file__, "serve", self.address]
        # It ends when its standard input does, as when this process dies.
        self.process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"


def command(environment: Mapping[str, str], *arguments: str) -> list[str]:
    """What to start instead of `python ARGUMENTS`, in this environment."""
    imported = json.dumps(_of_jax(environment))
    if imported not in _servers:
        _servers[imported] = _Server(environment)
    return [*_CALLER, _servers[imported].address, *arguments]


def console_scripts(environment: Mapping[str, str], folder: Path, names: Iterable[str]) -> None:
    """Writes the commands `judgelm-NAME`."""
    for name in names:
        program = (
            f"import sys; from judgelm_jax.starting import start; sys.argv[0] = 'judgelm-{name}'; sys.exit(start('{name}'))"
        )
        words = command(environment, "-c", program)
        script = folder / f"judgelm-{name}"
        script.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in words[:-1]) + f' "{words[-1]}" "$@"\n')
        script.chmod(0o755)


class Process(subprocess.Popen[str]):
    """`python ARGUMENTS`; a signal goes to the worker, whose number is `worker`."""

    def __init__(self, environment: Mapping[str, str], *arguments: str, **options: Any):
        reading, writing = os.pipe()
        try:
            own = {**environment, "WARM_WORKER": str(writing)}
            super().__init__(command(environment, *arguments), env=own, pass_fds=[writing], text=True, **options)
        finally:
            os.close(writing)
        with open(reading) as told:
            self.worker = int(told.readline())

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.worker, sig)


def seconds() -> float:
    """Of CPU, of all workers that ended, and of the servers."""
    ticks = 0
    for server in _servers.values():
        with contextlib.suppress(FileNotFoundError):
            fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def close() -> None:
    """Ends the servers."""
    for server in _servers.values():
        server.process.communicate()
        shutil.rmtree(server.folder)
    _servers.clear()


def _of_jax(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in sorted(environment.items()) if name.startswith("JAX_")}


def _call(address: str, arguments: list[str]) -> None:
    """What a caller does: it asks for a worker and ends as that does."""
    pid_to = int(os.environ.pop("WARM_WORKER", "-1"))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        asked = json.dumps({"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        socket.send_fds(connection, [len(asked).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(asked)
        with connection.makefile() as told:
            worker = told.readline()
            if pid_to >= 0:
                os.write(pid_to, worker.encode())
                os.close(pid_to)
            ended = int(told.readline() or 1)
    if ended < 0:
        with contextlib.suppress(OSError):  # of SIGKILL
            signal.signal(-ended, signal.SIG_DFL)
        os.kill(os.getpid(), -ended)
    os._exit(ended)


def _import() -> None:
    """Imports what most commands do, and do late."""
    hidden = dict.fromkeys(("torch", "boto3"))  # as for most users TensorBoard's writer finds neither
    sys.modules.update(hidden)
    importlib.import_module("tensorboardX")
    for name in hidden:
        del sys.modules[name]
    for name in _IMPORTED:
        importlib.import_module(name)
    assert not hidden.keys() & sys.modules.keys()


def _serve(address: str) -> dict[str, Any]:
    """Starts a worker for each that asks; returns in the worker, with what it was asked for."""
    warnings.simplefilter("ignore")
    _import()
    gc.collect()
    gc.freeze()  # else each worker writes into, and so copies, all of these pages
    warnings.resetwarnings()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listening, 0], [], [], 1.0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if 0 in ready:
            os._exit(0)
        if ready:
            connection, _ = listening.accept()
            if not os.fork():
                listening.close()
                return _watched(connection)
            connection.close()


def _watched(connection: socket.socket) -> dict[str, Any]:
    """Forks the worker, in which it returns; the process that called tells how it ends, and kills it if nobody listens."""
    size, files, _, _ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb", buffering=0) as told:
        asked = b""
        while len(asked) < int.from_bytes(size, "big"):
            asked += told.read(1 << 20)
    worker = os.fork()
    if not worker:
        connection.close()
        for own, file in enumerate(files):
            os.dup2(file, own)
            os.close(file)
        return json.loads(asked)
    for file in [0, 1, 2, *files]:
        os.close(file)
    connection.sendall(f"{worker}\n".encode())
    watched = os.pidfd_open(worker)
    if watched not in select.select([watched, connection], [], [])[0]:
        os.kill(worker, signal.SIGKILL)
    _, status = os.waitpid(worker, 0)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _work(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Does what `python ARGUMENTS` does, for a program or a file."""
    os.chdir(folder)
    assert _of_jax(environment) == _of_jax(os.environ), "JAX has read its variables of the environment before"
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    if arguments[0] == "-c":
        sys.argv, code, sys.path[0] = ["-c", *arguments[2:]], arguments[1], ""
    else:
        sys.argv, code, sys.path[0] = arguments, Path(arguments[0]).read_text(), str(Path(arguments[0]).resolve().parent)
    main = sys.modules["__main__"].__dict__
    for name in [name for name in main if not name.startswith("__")]:
        del main[name]
    exec(compile(code, arguments[0] if arguments[0] != "-c" else "<string>", "exec"), main)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _work(**_serve(sys.argv[2]))
    else:
        _call(sys.argv[1], sys.argv[2:])
