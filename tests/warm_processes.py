"""Processes that are forked from one that has imported JAX and its companions already: two seconds of each start are imports.

```
test ─ caller (as `python -c PROGRAM ARGUMENTS`, with its stdin, stdout, stderr) ─ socket ─ server ─ watcher ─ worker
```
The caller ends as the worker does, of its signal or with its code; where the caller dies, so does the worker. Two things are
not to be seen in workers, and tests of them start real processes: what happens before a command has imported anything, and
that a command imports what it needs.

Libraries read the environment when they are imported, so there is a server for each set of such variables. It has touched no
device and started no thread.
"""

import contextlib
import gc
import importlib
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
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
_READ_ON_IMPORT = ("JAX_", "HF_", "MPL", "PYTHON", "XDG_")
_CALLER = (sys.executable, "-IS", str(Path(__file__).resolve()))
_servers: dict[str, "Server"] = {}
_seeds = itertools.cycle("01")


class Server:
    """One process that has imported all and forks a worker for each that asks at its address."""

    def __init__(self, environment: Mapping[str, str]):
        self.folder = tempfile.mkdtemp(prefix="warm-", dir="/tmp")  # the name of a socket must be short
        self.address = f"{self.folder}/socket"
        command = [sys.executable, __file__, "serve", self.address]
        # It ends when its standard input does, as when this process dies.
        own = dict(environment) | {"OMP_NUM_THREADS": "1"}  # more threads would not survive a fork
        self.process = subprocess.Popen(command, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n", "the server of warm processes did not start"

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def command(environment: Mapping[str, str], program: str, *arguments: str) -> list[str]:
    """What to start, in this environment, instead of `python -c PROGRAM ARGUMENTS`."""
    key = json.dumps(_read_on_import(environment))
    if key not in _servers:
        _servers[key] = Server(environment)
    return [*_CALLER, _servers[key].address, program, *arguments]


def console_scripts(environment: Mapping[str, str], folder: Path, names: Iterable[str]) -> None:
    """Writes the commands `judgelm-NAME`."""
    for name in names:
        *words, program = command(environment, f"import sys; from judgelm_jax.starting import start; sys.exit(start('{name}'))")
        script = folder / f"judgelm-{name}"
        script.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in words) + f' "{program}" "$@"\n')
        script.chmod(0o755)


class Process(subprocess.Popen[str]):
    """`python -c PROGRAM ARGUMENTS`; a signal goes to the worker, whose number is `worker`. Strings have other hashes than in
    the process started before, so that no order of a set comes back by chance."""

    def __init__(self, environment: Mapping[str, str], program: str, *arguments: str, **options: Any):
        own = {**environment, "PYTHONHASHSEED": next(_seeds)}
        reading, writing = os.pipe()
        try:
            wanted = command(own, program, *arguments)
            super().__init__(wanted, env={**own, "WARM_WORKER": str(writing)}, pass_fds=[writing], text=True, **options)
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
        server.close()
    _servers.clear()


def _read_on_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in sorted(environment.items()) if name.startswith(_READ_ON_IMPORT)}


def _call(address: str, program: str, *arguments: str) -> None:
    """What a caller does: it asks for a worker and ends as that does."""
    told_to = int(os.environ.pop("WARM_WORKER", "-1"))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        asked = {"program": program, "arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(connection, [b"\n"], [0, 1, 2])
        connection.sendall(json.dumps(asked).encode() + b"\n")
        with connection.makefile() as told:
            worker = told.readline()
            if told_to >= 0:
                os.write(told_to, worker.encode())
                os.close(told_to)
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
    gc.collect()
    gc.freeze()  # else each worker writes into, and so copies, all of these pages


def _serve(address: str) -> dict[str, Any]:
    """Starts a worker for each that asks; returns in the worker, with what it was asked for."""
    at_ctrl_c = signal.signal(signal.SIGINT, signal.SIG_IGN)  # that is for those who ask
    _import()
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen(64)
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listening, reading, 0], [], [])
        if 0 in ready:
            shutil.rmtree(Path(address).parent, ignore_errors=True)
            os._exit(0)
        if reading in ready:
            os.read(reading, 1000)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
        if listening in ready:
            connection, _ = listening.accept()
            if not _fork():
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for file in (reading, writing, listening.detach()):
                    os.close(file)
                return _watched(connection) | {"at_ctrl_c": at_ctrl_c}
            connection.close()


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # JAX warns of forks, and has no thread yet
        return os.fork()


def _watched(connection: socket.socket) -> dict[str, Any]:
    """Forks the worker, in which it returns; the watcher tells how the worker ends, and kills it where nobody listens."""
    try:
        _, files, _, _ = socket.recv_fds(connection, 1, 3)
        with connection.makefile("rb") as told:
            asked = json.loads(told.readline())
    except ValueError:  # the caller died meanwhile
        os._exit(1)
    worker = _fork()
    if not worker:
        connection.close()
        for own, file in enumerate(files):
            os.dup2(file, own)
            os.close(file)
        return asked
    for file in [0, 1, 2, *files]:
        os.close(file)

    def kill_with_caller() -> None:
        with contextlib.suppress(OSError):
            connection.recv(1)
        os.kill(worker, signal.SIGKILL)

    threading.Thread(target=kill_with_caller, daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{worker}\n".encode())
    _, status = os.waitpid(worker, 0)
    with contextlib.suppress(BrokenPipeError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _work(program: str, arguments: list[str], folder: str, environment: dict[str, str], at_ctrl_c: Any) -> None:
    """Does what `python -c PROGRAM ARGUMENTS` does."""
    signal.signal(signal.SIGINT, at_ctrl_c)
    os.chdir(folder)
    assert _read_on_import(environment) == _read_on_import(os.environ), "the variables are not those of the server"
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    sys.modules["numpy"].random.seed()
    sys.argv, sys.path[0] = ["-c", *arguments], ""
    main = sys.modules["__main__"].__dict__
    for name in [name for name in main if not name.startswith("__") or name in ("__file__", "__cached__")]:
        del main[name]
    exec(compile(program, "<string>", "exec"), main)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        _work(**_serve(sys.argv[2]))
    else:
        _call(*sys.argv[1:])
