"""Every process watches the run: who is still missing at the start, who failed, who is lost.

Each process has a channel to process 0, over which both say every few seconds that they are there. Process 0 ends all when a
process fails, stays silent or goes; the others notice themselves when process 0 does.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from judgelm_jax.errors import InputError, PeerError
from judgelm_jax.processes.connections import Channel, Message, remove_local_addresses

LOST_SECONDS = 30.0  # a process that is silent for so long is lost
_BEAT_SECONDS = 2.0
_TELL_SECONDS = 10.0  # between two lines on who is missing
_KNOW_SECONDS = 10.0  # process 0, which all hear of the others from, stays so long for them at its end
_POLL_SECONDS = 0.1

Facts = dict[str, Any]


class Watch:
    """What one process knows of the others. It ends this process, from its threads, where the run cannot go on."""

    def __init__(self, command: str, seconds: float):
        """`command`: speaks on stderr. `seconds`: how long the processes wait for each other at the start."""
        self._command, self._seconds = command, seconds
        self._began = time.monotonic()
        self.own = self._count = 0
        self.here: dict[int, Facts] = {}  # what those said of themselves that came
        self._channels: dict[int, Channel] = {}  # of process 0 to all others, of the others to process 0
        self._heard: dict[int, float] = {}  # when, last
        self._done: set[int] = set()
        self._lock = threading.Lock()
        self._all_here, self._finished = threading.Event(), threading.Event()
        self._over, self._told = threading.Event(), threading.Event()  # nothing more is watched; the others know why
        self._ending = threading.Lock()

    def begin(self, own: int, count: int, facts: Facts, channel: Channel | None) -> None:
        """Watches from now on.

        Args:
          own, count: this process, and how many there are.
          facts: what it says of itself; `host` is its host.
          channel: to process 0, which has none.
        """
        self.own, self._count = own, count
        if channel is None:
            self._come(0, facts)
        else:
            self._channels[0], self._heard[0] = channel, time.monotonic()
            channel.send({"hello": own, "of": count, "facts": facts})
            self._start(lambda: self._listen(channel))
        self._start(self._keep_time)

    def attend(self, channel: Channel) -> None:
        """Process 0 listens to another one, to its end."""
        own: int | None = None
        for message in channel.messages():
            if own is None:
                own = self._welcome(channel, message)
                if own is None:
                    return
            self._heard[own] = time.monotonic()
            if "failure" in message:
                with self._lock:
                    self._channels.pop(own, None)
                channel.send(message)  # that process may end
                if self.fail(message["failure"], message["code"]):
                    self._end(message["failure"], message["code"])
                return
            if "done" in message:
                self._done.add(own)
        if own is None:
            return
        with self._lock:
            self._channels.pop(own, None)
            lost = self._all_here.is_set() and own not in self._done
            if not self._all_here.is_set():
                self.here.pop(own, None)  # another one may come in its place
        if lost:
            self._lose(own, "its connection closed")

    def wait_for_all(self) -> None:
        """Returns when all are here; this process ends where they do not come in time."""
        self._all_here.wait()

    def fail(self, line: str, code: int) -> bool:
        """Ends the other processes with this line and exit code; returns when they know it, or do not answer.

        False: this process is ending already, with another line.
        """
        with self._lock:
            first = not self._over.is_set()
            self._over.set()
        if not first:
            self._told.wait(_KNOW_SECONDS)
            return False
        self._say_to_all({"failure": line, "code": code})
        self._wait_until(lambda: not self._channels or self._finished.is_set(), _KNOW_SECONDS)
        self._told.set()
        return True

    def finish(self) -> None:
        """Returns when all processes are done, at once after `fail`; this one ends where another fails or is lost before."""
        if self._over.is_set():
            return
        self._done.add(self.own)
        if self.own:
            self._say_to_all({"done": True})
            self._finished.wait()
            self._over.set()
            return
        while len(self._done) < self._count:
            time.sleep(_POLL_SECONDS)
        self._over.set()
        self._say_to_all({"finished": True})
        self._wait_until(lambda: not self._channels, _KNOW_SECONDS)

    def _welcome(self, channel: Channel, message: Message) -> int | None:
        """The number of the process that came, or None, and it is told why, where it cannot be one of ours."""
        number, count, facts = message.get("hello"), message.get("of"), message.get("facts")
        if not (isinstance(number, int) and isinstance(facts, dict) and isinstance(facts.get("host"), str)):
            return None  # a port scanner, or another program
        if count == self._count and not 0 < number < count:
            return None
        with self._lock:
            wrong = self._wrong(number, count, facts)
            if wrong is None:
                self._channels[number] = channel
                self._come(number, facts)
                return number
        channel.send({"failure": wrong, "code": InputError.exit_code})
        if self.fail(wrong, InputError.exit_code):
            self._end(wrong, InputError.exit_code)
        return None

    def _wrong(self, number: int, count: Any, facts: Facts) -> str | None:
        """What is wrong with a process that comes."""
        if count != self._count:
            return (
                f"the processes differ in how many they are: --processes is {count} in process {number} on {facts['host']} and "
                f"{self._count} in process 0 on {self.here[0]['host']}; give all of them the same"
            )
        if number in self.here:
            hosts = f"{self.here[number]['host']} and on {facts['host']}"
            return f"two processes are --process={number}, on {hosts}; number them from 0 to {self._count - 1}"
        return None

    def _come(self, number: int, facts: Facts) -> None:
        self.here[number], self._heard[number] = facts, time.monotonic()
        if len(self.here) == self._count:
            self._heard = dict.fromkeys(self.here, time.monotonic())
            self._say_to_all({"all": [self.here[other] for other in range(self._count)]})
            self._all_here.set()

    def _listen(self, channel: Channel) -> None:
        """Another process than 0 listens to it."""
        for message in channel.messages():
            self._heard[0] = time.monotonic()
            if "all" in message:
                self.here = dict(enumerate(message["all"]))
                self._all_here.set()
            if "finished" in message:
                self._over.set()
                self._finished.set()
            if "failure" in message:
                if self._over.is_set():  # it was this one that failed
                    self._finished.set()
                    return
                self._end(message["failure"], message["code"])
        self._lose(0, "its connection closed")

    def _keep_time(self) -> None:
        """Gives signs of life, and notices who gives none."""
        beat = told = self._began
        while not self._over.wait(_POLL_SECONDS):
            now = time.monotonic()
            if now - beat > _BEAT_SECONDS:
                beat = now
                self._say_to_all({"here": True})
            if self._all_here.is_set():
                for other, when in list(self._heard.items()):
                    if other != self.own and now - when > LOST_SECONDS and other not in self._done:
                        self._lose(other, f"no sign of life for {LOST_SECONDS:.0f} s")
            elif now - self._began > self._seconds + (_KNOW_SECONDS if self.own else 0):  # process 0 says who
                line = f"{self._missing()} did not come within {self._seconds:.0f} s; start each once, and look at its output"
                if self.fail(line, PeerError.exit_code):
                    self._end(line, PeerError.exit_code)
            elif self.own == 0 and now - told > _TELL_SECONDS:
                told = now
                self._say(f"waiting for {self._missing()} ({now - self._began:.0f} s of {self._seconds:.0f})")

    def _missing(self) -> str:
        missing = [number for number in range(self._count) if number not in self.here]
        if self.own:
            return "the other processes"
        named = ", ".join(map(str, missing[:8])) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        return f"process{'es' if len(missing) > 1 else ''} {named} of {self._count}"

    def _lose(self, other: int, reason: str) -> None:
        with self._lock:
            if self._over.is_set():
                return
            host = self.here.get(other, {}).get("host", "an unknown host")
            line = f"process {other} on {host} was lost ({reason}); run the same command again with --resume to go on"
            self._channels.pop(other, None)
        if self.fail(line, PeerError.exit_code):
            self._end(line, PeerError.exit_code)

    def _say_to_all(self, message: Message) -> None:
        for channel in list(self._channels.values()):
            channel.send(message)

    def _wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not condition() and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)

    def _start(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="peers", daemon=True).start()

    def _say(self, line: str) -> None:
        start = "\n" if sys.stderr.isatty() else ""  # below a progress bar
        print(f"{start}judgelm-{self._command}: {line}", file=sys.stderr, flush=True)

    def _end(self, line: str, code: int) -> None:
        self._ending.acquire()  # and never released: the first line counts
        self._over.set()
        self._say(line)
        tidy()
        os._exit(code)


def tidy() -> None:
    """What Python would do at the end of a process: one that ends at once would lose what was printed, and leave files."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    remove_local_addresses()
