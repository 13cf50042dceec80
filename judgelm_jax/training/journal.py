"""What a run tells while it trains: a progress bar or log lines, `metrics.jsonl` and TensorBoard's event files."""

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import RecordWriter
from tqdm import tqdm

from judgelm_jax.errors import InputError
from judgelm_jax.notices import duration
from judgelm_jax.records.json_lines import dump_line
from judgelm_jax.records.output_files import write_atomically
from judgelm_jax.training.identity import METRICS_FILE
from judgelm_jax.training.run_folder import TENSORBOARD

LOG_SECONDS = 60.0  # between two lines about steps, where stderr is no terminal
_FLUSH_SECONDS = 10.0
_WIDTH = 80
_BAR = "{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}{postfix}"


class Journal:
    """Lines of metrics, each with its `step`. Going on from a step takes back what a killed run wrote after it."""

    def __init__(self, folder: Path, step: int, steps: int):
        """`step` steps of `steps` are done."""
        self._path = folder / METRICS_FILE
        kept = [line for line in _whole_lines(self._path) if _step_of(self._path, line) <= step]
        with write_atomically(self._path) as file:
            file.writelines(kept)
        self._file = self._path.open("ab", buffering=0)  # what is written is with the system
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar = tqdm(
            total=steps, initial=step, desc="training", disable=not self._terminal, bar_format=_BAR, ncols=_columns() - 1
        )
        self._steps = steps
        self._first: tuple[int, float] | None = None  # the first step of this run and when it was told: before, it compiled
        self._logged = -LOG_SECONDS
        self._events = _Events(folder / TENSORBOARD, step)
        if self._events.failure is not None:
            self._go_on_without_events()

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Adds a line; `kind` is `train`, `evaluation` or `epoch`. Scalars go to TensorBoard, too.

        Raises:
          InputError: the line cannot be written. Without TensorBoard a run goes on and says so once.
        """
        self._append(dump_line({"step": step, "kind": kind, **values}) + "\n")
        scalars = {name: value for name, value in values.items() if _is_number(value)}
        if self._events.failure is None:
            self._events.write(step, {f"{kind}/{name}": value for name, value in scalars.items()})
            if self._events.failure is not None:
                self._go_on_without_events()
        if kind == "train":
            self._tell_step(step, values)
        elif kind == "evaluation":
            told = ", ".join(f"{name} {value if isinstance(value, int) else f'{value:.4f}'}" for name, value in scalars.items())
            self.say(f"step {step} of {self._steps}, held out: {told}")

    def say(self, text: str) -> None:
        """A line on stderr: above the bar, or with the time and the host where there is none."""
        if self._terminal:
            self._bar.write(text, file=sys.stderr)
        else:
            log(text)

    def close(self) -> None:
        """Closes the files."""
        self._bar.close()
        self._events.close()
        self._file.close()

    def _append(self, line: str) -> None:
        rest = memoryview(line.encode())
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise InputError(
                f"{self._path}: cannot be written ({error.strerror or error}); make room there and run again with --resume"
            ) from error

    def _tell_step(self, step: int, values: dict[str, Any]) -> None:
        if self._terminal:
            self._bar.set_postfix_str(_headline(values), refresh=False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        first, began = self._first = self._first or (step, now)
        if now - self._logged >= LOG_SECONDS or step == self._steps:
            self._logged = now
            left = f", {duration((self._steps - step) * (now - began) / (step - first))} left" if step > first else ""
            self.say(f"step {step} of {self._steps}{left}: {_details(values)}")

    def _go_on_without_events(self) -> None:
        reason = self._events.failure
        self.say(f"{self._events.folder}: cannot be written ({reason}); the run goes on without TensorBoard")


class _Events:
    """TensorBoard's event files, written in the thread of the caller: a writer thread that dies would hang the run.

    `failure` says why no more is written.
    """

    def __init__(self, folder: Path, step: int):
        """Takes back, in TensorBoard's eyes, what was written after `step`."""
        self.folder = folder
        self.failure: str | None = None
        self._writer: Any = None
        self._flushed = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # As TensorBoard wants names; several in one second, and those of a run before, stay separate.
            self._writer = RecordWriter(str(folder / f"events.out.tfevents.{time.time_ns() / 1e9:.6f}.judgelm"))
        except OSError as error:
            self.failure = error.strerror or str(error)
        self._add(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(event_pb2.Event(wall_time=time.time(), step=step + 1, session_log=start))

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Adds scalars of a step."""
        values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._add(event_pb2.Event(wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=values)))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._try(self._writer.flush)
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Closes the file."""
        if self._writer is not None:
            self._try(self._writer.close)

    def _add(self, event: Any) -> None:
        if self.failure is None:
            self._try(lambda: self._writer.write(event.SerializeToString()))

    def _try(self, action: Any) -> None:
        try:
            action()
        except OSError as error:
            self.failure = error.strerror or str(error)


def _columns() -> int:
    """The width of the terminal, and no more than 80."""
    try:
        return min(os.get_terminal_size(sys.stderr.fileno()).columns or _WIDTH, _WIDTH)
    except (OSError, ValueError, AttributeError):
        return _WIDTH


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _loss(values: dict[str, Any]) -> str:
    return "not finite" if values["loss"] is None else f"{values['loss']:.4f}"


def _headline(values: dict[str, Any]) -> str:
    """What stands behind the bar, short enough for 80 columns."""
    return f"loss {_loss(values)}, {_short(values['tokens_per_second'])} tokens/s"


def _details(values: dict[str, Any]) -> str:
    norm = "not finite" if values["gradient_norm"] is None else f"{values['gradient_norm']:.4f}"
    share = "" if values["utilization"] is None else f" ({100 * values['utilization']:.1f} % of peak)"
    memory = "" if values["memory_bytes"] is None else f", {values['memory_bytes'] / 1e9:.1f} GB"
    return (
        f"loss {_loss(values)}, gradient {norm}, rate {values['learning_rate']:.1e}, "
        f"{values['tokens_per_second']:,.0f} tokens/s{share}{memory}"
    )


def _short(number: float) -> str:
    return f"{number:.0f}" if number < 1e4 else f"{number / 1e3:.0f}k" if number < 1e7 else f"{number / 1e6:.0f}M"


class Silence:
    """The journal of every process but the first."""

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def log(text: str) -> None:
    """A line on stderr, with the time and the host."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {socket.gethostname()} {text}", file=sys.stderr, flush=True)


def _step_of(path: Path, line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: holds a line that no training wrote ({line[:40]!r}); remove it") from error


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n") and line.strip()]
