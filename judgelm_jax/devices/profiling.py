"""A profile of some steps of a run, for TensorBoard's profile plugin, XProf or Perfetto."""

import sys
from pathlib import Path
from typing import Any

import jax

_WARM_UP = 2  # steps before the first that is traced: they fill caches


class Profile:
    """Traces `steps` steps of this process into a folder; with 0 steps nothing."""

    def __init__(self, folder: Path, steps: int):
        self._folder, self._steps, self._count = folder, steps, 0
        if jax.process_count() > 1:
            self._folder = folder / f"process-{jax.process_index()}"

    def stepped(self, result: Any) -> None:
        """A step was given to the devices, which compute `result`."""
        if not self._steps:
            return
        self._count += 1
        if self._count == _WARM_UP:
            jax.block_until_ready(result)
            jax.profiler.start_trace(str(self._folder))
        elif self._count == _WARM_UP + self._steps:
            jax.block_until_ready(result)
            self._stop(self._steps)

    def close(self) -> None:
        """Ends a trace of fewer steps."""
        if not self._steps or self._count >= _WARM_UP + self._steps:
            return
        if self._count > _WARM_UP:
            self._stop(self._count - _WARM_UP)
            return
        if self._count == _WARM_UP:
            jax.profiler.stop_trace()
        warm = f"--profile: nothing to trace, the run has {self._count} steps and the first {_WARM_UP} warm up"
        print(warm, file=sys.stderr)

    def _stop(self, steps: int) -> None:
        jax.profiler.stop_trace()
        print(f"profile    {steps} steps, in {self._folder}", file=sys.stderr, flush=True)
