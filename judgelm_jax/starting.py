"""How a console command begins and ends: Ctrl-C (SIGINT) is handled before anything heavy is imported.

Only console commands import this module, for that alone changes what SIGINT does: it ends the process at once, with one line.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside of an import that ends in a traceback, inside a
callback of the garbage collector or of a C++ library it is printed and forgotten, and during a compilation it waits until that
ends. Until a command runs, and inside of an import, nothing is lost by ending at once. Else KeyboardInterrupt unwinds the
command, which `run` turns into its line, and a thread of its own ends the process where that takes too long, or at the second
SIGINT.
"""

import _signal  # type: ignore[import-not-found]  # what `signal` wraps, at once: the import of that takes its time
import os
import sys


def _end(command: str) -> None:
    try:
        os.write(2, (b"\n" if os.isatty(2) else b"") + f"{command}: interrupted\n".encode())  # below a progress bar
        sys.stdout.flush()  # which may be in use right now
    finally:
        os._exit(130)


_signal.signal(_signal.SIGINT, lambda *_: _end(os.path.basename(sys.argv[0])))

import importlib  # noqa: E402
import signal  # noqa: E402
import threading  # noqa: E402
from collections.abc import Callable  # noqa: E402
from types import FrameType  # noqa: E402

_GRACE = 5.0  # seconds


def start(name: str) -> int:
    """Runs the command `judgelm-NAME` of this process; returns its exit code."""
    command = f"judgelm-{name}"
    signal.signal(signal.SIGINT, lambda *_: _end(command))
    _listen(command)
    entry = importlib.import_module(f"judgelm_jax.commands.{name}").entry
    try:
        signal.signal(signal.SIGINT, lambda _, frame: _interrupt(command, frame))
        code = entry()
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))  # the work is done: what is left is Python's own end
    except KeyboardInterrupt:  # just before or after the command
        _end(command)
    if code == 2:  # its one line was said: what threads of libraries still find wrong adds nothing
        sys.stderr.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return code


def __getattr__(name: str) -> Callable[[], int]:
    """The console command of each module of `commands`, by its name."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return lambda: start(name)


def _interrupt(command: str, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            _end(command)
        frame = frame.f_back
    raise KeyboardInterrupt


def _listen(command: str) -> None:
    """Starts the thread, which reads the numbers of signals from a pipe that the operating system's handler fills."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def give_up() -> None:
        threading.Timer(1.0, os._exit, [130]).start()  # where nobody reads standard output, it cannot be flushed
        _end(command)

    def listen() -> None:
        heard = 0
        while number := os.read(reading, 1):
            if number[0] == signal.SIGINT:
                heard += 1
                if heard > 1:
                    give_up()
                late = threading.Timer(_GRACE, give_up)
                late.daemon = True
                late.start()

    threading.Thread(target=listen, name="interrupts", daemon=True).start()
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
