"""What SIGINT (Ctrl-C) and SIGTERM do to a run: end it at once while nothing can be lost, else ask it to save first.

Python raises KeyboardInterrupt wherever the main thread happens to be: inside a callback of the garbage collector or of a C++
library it is printed and forgotten, and during a compilation it waits until that ends. So a thread of its own reads the
numbers of the signals from a pipe, which the operating system's handler fills whatever the main thread does.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

_FIRST = "before the first step: nothing is lost, run the same command again"
_AGAIN = "without saving: run again with --resume to go on from the last saved step"
_SAVED = "after the last step, which is saved: run again with --resume to write what the run leaves"
_END = 0  # no signal's number


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    """The run was asked to stop by `signal` and saved itself after `step` steps."""

    def __init__(self, step: int, by: int):
        super().__init__(f"stopped after step {step}, which is saved; run again with --resume to go on")
        self.step = step
        self.exit_code = 128 + by  # as a shell says


class Stopping:
    """What a signal does now. Made by `listening`; a training moves it on."""

    def __init__(self, command: str, before_end: Callable[[str, int], None], at_once: str):
        self._command, self._before_end = command, before_end
        self._lock = threading.Lock()
        self._at_once: str | None = at_once
        self.asked: int | None = None  # the signal that asked the run to save and stop

    def save_first(self) -> None:
        """From now on a signal asks the run to save and stop, and a second SIGINT ends it at once."""
        with self._lock:
            self._at_once = None

    def all_saved(self) -> None:
        """From now on a signal ends the process at once, as every step is saved; one that came after the last step, too."""
        with self._lock:
            self._at_once = _SAVED
            if self.asked is not None:
                self._end(self.asked, _SAVED)

    def hear(self, number: int) -> None:
        """Does what the signal `number` means now."""
        with self._lock:
            if self._at_once is not None:
                self._end(number, self._at_once)
            elif self.asked is None:
                self.asked = number
                if number == signal.SIGINT:
                    self._say("stopping: saves after this step; once more to end at once")
            elif number == signal.SIGINT:
                self._end(number, _AGAIN)

    def _end(self, number: int, where: str) -> None:
        line = f"stopped by {signal.Signals(number).name} {where}"
        try:
            self._say(line)
            self._before_end(line, 128 + number)
        finally:
            os._exit(128 + number)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):
            start = "\n" if os.isatty(2) else ""  # below a progress bar
            os.write(2, f"{start}judgelm-{self._command}: {text}\n".encode())


@contextlib.contextmanager
def listening(
    command: str = "train",
    before_end: Callable[[str, int], None] = lambda line, code: None,
    at_once: str = _FIRST,
    signals: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM),
) -> Iterator[Stopping]:
    """Handles `signals` in this process until the end of the block, where this is the main thread.

    Args:
      command: speaks on stderr.
      before_end: is told the line and the exit code before the process ends at once.
      at_once: what the line says of a process that ends at once, as it does from the beginning.
    """
    stopping = Stopping(command, before_end, at_once)
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def listen() -> None:
        while (number := os.read(reading, 1)) not in (b"", bytes([_END])):
            if number[0] in signals:
                stopping.hear(number[0])
            elif descriptor >= 0:  # others may be listened to already
                os.write(descriptor, number)

    thread = threading.Thread(target=listen, name="signals", daemon=True)
    thread.start()
    descriptor = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in signals}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(descriptor)
        os.write(writing, bytes([_END]))
        thread.join()
        os.close(writing)
        os.close(reading)
        sys.stderr.flush()
