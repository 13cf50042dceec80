"""How far a run is, from the files that it writes. Imports no JAX."""

import json
import time
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError
from judgelm_jax.judging import manifest, output
from judgelm_jax.judging.judgment_tally import Tally, judgments
from judgelm_jax.judging.progress import STATE_FILE, read_state
from judgelm_jax.notices import duration
from judgelm_jax.training.identity import METRICS_FILE, MODEL_FOLDER, RUN_FILE
from judgelm_jax.verdicts.verdicts import STATUSES

RunStatus = dict[str, Any]

_FAILED = ("unparsed", "overflow")
_RECENT_STEPS = 20
_TAIL_BYTES = 2**16
_SILENT_SECONDS = 120.0  # without news a shard counts as not running


def of(path: Path, now: float | None = None) -> RunStatus:
    """How far the run is that was given `path` as its --output. `now`: Unix time.

    Returns:
      `run` (`judging` or `training`), `done`, `total`, `complete`, `seconds_left` (None: not known) and of a judging run
      `failed`, `rate` (records a second, of the shards that run), `shards` (as in its state file, with `silent_seconds`) and
      `not_begun` (the numbers of shards of which that file does not know), of a training run `loss`, `tokens_per_second` and
      `silent_seconds`.

    Raises:
      InputError: no run writes there.
    """
    now = time.time() if now is None else now
    if (path / RUN_FILE).is_file():
        return _of_training(path, now)
    folder = output.partial_folder(path)
    if not path.is_file() and not folder.is_dir():
        raise InputError(f"{path}: no run writes there; give what a run has as --output")
    return _of_judging(path, folder, now)


def lines(path: Path, status: RunStatus) -> list[str]:
    """What `of` says, for people."""
    left = "" if status["seconds_left"] is None else f", {duration(status['seconds_left'])} left"
    if status["run"] == "training":
        loss = "" if status["loss"] is None else f", loss {status['loss']:.4f}"
        rate = "" if status["tokens_per_second"] is None else f", {status['tokens_per_second']:,.0f} tokens/s"
        said = f"training {path}: step {status['done']} of {status['total']}{loss}{rate}{left}"
        silent = status["silent_seconds"]
        ending = "complete" if status["complete"] else "no step yet" if silent is None else f"last step {_ago(silent)}"
        return [f"{said}; {ending}"]
    first = f"judging {path}: {status['done']} of {status['total']} records, {status['failed']} failed"
    if status["complete"]:
        return [f"{first}; complete"]
    found = [f"{first}, {status['rate']:.2f} records/s{left}"]
    for number, shard in sorted(status["shards"].items(), key=lambda item: int(item[0])):
        failed = sum(shard["statuses"].get(name, 0) for name in _FAILED)
        stopped = "; stopped" if _is_stopped(shard) else ""
        found.append(
            f"  shard {number} on {shard['host']}: {shard['done']} of {shard['total']}, {failed} failed, "
            f"{shard['rate']:.2f} records/s, last news {_ago(shard['silent_seconds'])}{stopped}"
        )
    if any(map(_is_stopped, status["shards"].values())):
        found.append("  what stopped goes on with the same command and --resume")
    if status["not_begun"]:
        found.append(f"  not begun: shard {', '.join(map(str, status['not_begun']))}")
    return found


def _of_judging(path: Path, folder: Path, now: float) -> RunStatus:
    if path.is_file():
        try:
            held = Tally(judgments(path)).summary()
        except InputError as error:
            raise InputError(f"{path}: holds no judgments; give what a run has as --output ({error})") from error
        counts = {name: held[name] for name in STATUSES}
        total = manifest.read(manifest.beside(path))["records"] if manifest.beside(path).exists() else sum(counts.values())
        return _judging(sum(counts.values()), total, counts, 0.0, {}, [], complete=True)
    state = read_state(folder / STATE_FILE)
    told = state.get("shards", {})
    shards = {number: shard | {"silent_seconds": max(0.0, now - shard["updated"])} for number, shard in told.items()}
    statuses = {name: sum(shard["statuses"].get(name, 0) for shard in shards.values()) for name in STATUSES}
    rate = sum(
        shard["rate"]
        for shard in shards.values()
        if shard["silent_seconds"] < _SILENT_SECONDS and shard["done"] < shard["total"] and not _is_stopped(shard)
    )
    try:
        declared = manifest.read(folder / "manifest.json")
    except FileNotFoundError:  # it is the last file of the folder to go
        raise InputError(f"{path}: no run writes there any more; give what a run has as --output") from None
    not_begun = [number for number in range(declared["shards"]) if str(number) not in shards]
    done = sum(shard["done"] for shard in shards.values())
    return _judging(done, declared["records"], statuses, rate, shards, not_begun, complete=False)


def _judging(
    done: int, total: int, statuses: dict[str, int], rate: float, shards: dict[str, Any], not_begun: list[int], complete: bool
) -> RunStatus:
    return {
        "run": "judging",
        "done": done,
        "total": total,
        "complete": complete,
        "failed": sum(statuses[name] for name in _FAILED),
        "statuses": statuses,
        "rate": rate,
        "seconds_left": (total - done) / rate if rate else None,
        "shards": shards,
        "not_begun": not_begun,
    }


def _is_stopped(shard: dict[str, Any]) -> bool:
    return shard["done"] < shard["total"] and not shard.get("running", True)


def _of_training(path: Path, now: float) -> RunStatus:
    try:
        total = int(json.loads((path / RUN_FILE).read_text(encoding="utf-8"))["steps"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(f"{path / RUN_FILE}: is damaged ({error}); give the --output of a training run") from error
    metrics = path / METRICS_FILE
    steps = _steps(metrics)
    last = steps[-1] if steps else {}
    recent = [step["seconds"] for step in steps[-_RECENT_STEPS:]]
    done = last.get("step", 0)
    return {
        "run": "training",
        "done": done,
        "total": total,
        "complete": done == total and (path / MODEL_FOLDER).is_dir(),
        "loss": last.get("loss"),
        "tokens_per_second": last.get("tokens_per_second"),
        "seconds_left": (total - done) * sum(recent) / len(recent) if recent else None,
        "silent_seconds": max(0.0, now - metrics.stat().st_mtime) if steps else None,
    }


def _steps(metrics: Path) -> list[dict[str, Any]]:
    """The last lines of steps in `metrics.jsonl`; one that is being written does not count."""
    if not metrics.is_file():
        return []
    with metrics.open("rb") as file:
        file.seek(max(0, metrics.stat().st_size - _TAIL_BYTES))
        whole = file.read().split(b"\n")[:-1]
    found = []
    for line in whole:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("kind") == "train" and "step" in row and "seconds" in row:
            found.append(row)
    return found


def _ago(seconds: float) -> str:
    return f"{duration(seconds)} ago"
