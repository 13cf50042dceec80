"""How a console command begins and ends: Ctrl-C (SIGINT) is handled before anything heavy is imported.

Python raises KeyboardInterrupt wherever the main thread happens to be. Inside of an import that ends in a traceback, inside a
callback of the garbage collector or of a C++ library it is printed and forgotten, and during a compilation it waits until that
ends. Nothing is lost by ending at once inside of an import; else KeyboardInterrupt unwinds the command, which `run` turns into
its line, and a thread of its own ends the process where that takes too long, or at the second SIGINT.
"""

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

_GRACE = 5.0  # seconds
_EXIT_INTERRUPTED = 130


def start(name: str) -> int:
    """Runs the command `judgelm-NAME` of this process; returns its exit code."""
    _handle_interrupts(name)
    try:
        code = importlib.import_module(f"judgelm_jax.commands.{name}").entry()
    except KeyboardInterrupt:  # before the command, or after it
        _end(name)
    signal.signal(signal.SIGINT, lambda *_: os._exit(code))  # the work is done: what is left is Python's own end
    return code


def __getattr__(name: str) -> Callable[[], int]:
    """The console command of each module of `commands`, by its name."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return lambda: start(name)


def _handle_interrupts(name: str) -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        if _imports(frame):
            _end(name)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        heard = 0
        while number := os.read(reading, 1):
            if number[0] == signal.SIGINT:
                heard += 1
                if heard > 1:
                    _end(name)
                late = threading.Timer(_GRACE, _end, [name])
                late.daemon = True
                late.start()

    threading.Thread(target=listen, name="interrupts", daemon=True).start()


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _end(name: str) -> None:
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # it may be in use right now
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        start = "\n" if os.isatty(2) else ""  # below a progress bar
        os.write(2, f"{start}judgelm-{name}: interrupted\n".encode())
    os._exit(_EXIT_INTERRUPTED)
