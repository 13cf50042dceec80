"""What a run tells while it trains: a progress bar, `metrics.jsonl` and TensorBoard's event files."""

import json
import sys
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm

from judgelm_jax.errors import InputError
from judgelm_jax.records import dump_line, write_atomically

METRICS_FILE = "metrics.jsonl"
_TENSORBOARD = "tensorboard"


class Journal:
    """Lines of metrics, each with its `step`. Going on from a step takes back what a killed run wrote after it."""

    def __init__(self, folder: Path, step: int, steps: int):
        """`step` steps of `steps` are done."""
        path = folder / METRICS_FILE
        kept = [line for line in _whole_lines(path) if _step_of(path, line) <= step]
        with write_atomically(path) as file:
            file.writelines(kept)
        self._file = path.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / _TENSORBOARD), purge_step=step + 1)
        self._bar = tqdm(total=steps, initial=step, desc="training", unit="step", disable=None)

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Adds a line; `kind` is `train`, `evaluation` or `epoch`. Scalars go to TensorBoard, too."""
        self._file.write(dump_line({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._events.add_scalar(f"{kind}/{name}", value, step)
        if kind == "train":
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(_headline(values), refresh=False)

    def say(self, text: str) -> None:
        """A line on stderr, above the bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Flushes and closes the files."""
        self._bar.close()
        self._events.close()
        self._file.close()


def _headline(values: dict[str, Any]) -> str:
    """What stands behind the bar."""
    loss, norm = ("not finite" if values[name] is None else f"{values[name]:.4f}" for name in ("loss", "gradient_norm"))
    share = "" if values["utilization"] is None else f" ({100 * values['utilization']:.1f} % of peak)"
    memory = "" if values["memory_bytes"] is None else f", {values['memory_bytes'] / 1e9:.1f} GB"
    return (
        f"loss {loss}, gradient {norm}, rate {values['learning_rate']:.1e}, {values['tokens_per_second']:,.0f} tokens/s{share}"
        f"{memory}"
    )


class Silence:
    """The journal of every process but the first."""

    def write(self, step: int, kind: str, values: dict[str, Any]) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


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
