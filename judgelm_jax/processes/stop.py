"""The processes of a run agree on the step after which they all stop, when any of them is asked to.

JAX's preemption service does the same, but takes SIGTERM over from the beginning, writes warnings, and is also asked by Orbax,
in a thread, with steps that are long past: it may then agree on a step that nobody comes to any more.
"""

import contextlib
import threading

import jax

from judgelm_jax.processes import store

_KEY = "stop"


class Stop:
    """What one process knows of it. Without other processes it stops after the step at which it was asked."""

    def __init__(self) -> None:
        self.signal: int | None = None  # that asked the first process that was asked
        self._step, self._last = 0, 0  # the step that is done here; after which all stop, 0: none is agreed on
        self._lock = threading.Lock()
        if store.are_joined():
            threading.Thread(target=self._agree, name="stop", daemon=True).start()

    def after(self, step: int, asked: int | None) -> bool:
        """Whether all processes stop after this step. Each must call it after each of its steps.

        Args:
          asked: the signal by which this process is asked to stop.
        """
        if not store.are_joined():
            self.signal = asked
            return asked is not None
        if asked is not None and self.signal is None:
            self.signal = asked
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # another one was asked, too
                store.put(_KEY, str(asked))
        with self._lock:  # while they agree nobody goes on
            self._step = step
            return step == self._last

    def _agree(self) -> None:
        """Once one is asked: the step after the last one that any process has done."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # a process is lost, which ends this one
            asked = store.wait(_KEY, store.LONG)
            with self._lock:
                self.signal = int(asked)
                store.put(f"{_KEY}/{store.own()}", str(self._step))
                steps = [int(store.wait(f"{_KEY}/{other}", store.LONG)) for other in range(store.count())]
                self._last = max(steps) + 1
