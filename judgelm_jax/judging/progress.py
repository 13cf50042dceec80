"""How far a judging run is: a bar on a terminal, else a line a minute, and OUTPUT.partial/state.json for whoever looks on.

```
state.json   {"version": 1, "total": 5000, "shards": {"0": {"host", "process_id", "done", "total", "rate", "seconds_left",
             "statuses": {"ok": …}, "began", "updated", "running"}, …}}
```
`total` counts the records of all shards; `rate` is in records a second, `began` and `updated` are Unix times. `running`
is false when the process ended, unless it was killed. The processes that judge other shards write to the same file, one after
another.
"""

import fcntl
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import tqdm

from judgelm_jax.notices import duration
from judgelm_jax.records.json_lines import Record
from judgelm_jax.verdicts.verdicts import STATUSES

STATE_FILE = "state.json"
STATE_VERSION = 1
LOG_SECONDS = 60.0  # between two lines, where stderr is no terminal
_STATE_SECONDS = 5.0
_FAILED = ("unparsed", "overflow")

State = dict[str, Any]


class Progress:
    """Tells how far one shard is. `folder`: OUTPUT.partial/; None: another process keeps the judgments and tells."""

    def __init__(self, folder: Path | None, shard: int, records: int, statuses: dict[str, int], total: int):
        """`statuses` counts the judgments that the shard has already, `total` its records, `records` those of all shards."""
        self._folder, self._shard, self._records, self._total = folder, shard, records, total
        self._statuses = {name: statuses.get(name, 0) for name in STATUSES}
        self._before = self._done = sum(self._statuses.values())
        self._began, self._clock = time.time(), time.monotonic()
        self._logged = self._written = self._clock
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._logs = folder is not None and not terminal
        self._running = True
        self._bar = tqdm.tqdm(total=total, initial=self._done, unit=" records", disable=folder is None or not terminal)
        self._write()

    def add(self, row: Record) -> None:
        """A record is judged."""
        self._statuses[row["status"]] += 1
        self._done += 1
        self._bar.update()
        now = time.monotonic()
        if now - self._written > _STATE_SECONDS:
            self._written = now
            self._write()
        if self._logs and now - self._logged > LOG_SECONDS:
            self._logged = now
            print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {described(self._own(), self._shard)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Writes the state a last time."""
        self._bar.close()
        self._running = False
        self._write()

    def _own(self) -> State:
        seconds = time.monotonic() - self._clock
        rate = (self._done - self._before) / seconds if seconds > 0 else 0.0
        return {
            "host": socket.gethostname(),
            "process_id": os.getpid(),
            "done": self._done,
            "total": self._total,
            "rate": rate,
            "seconds_left": (self._total - self._done) / rate if rate else None,
            "statuses": self._statuses,
            "began": self._began,
            "updated": time.time(),
            "running": self._running,
        }

    def _write(self) -> None:
        """Best effort: a run does not end because nobody can be told how far it is."""
        if self._folder is None:
            return
        try:
            with (self._folder / "state.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                path, temporary = self._folder / STATE_FILE, self._folder / "state.tmp"
                shards = read_state(path).get("shards", {}) if path.exists() else {}
                state = {"version": STATE_VERSION, "total": self._records, "shards": shards | {str(self._shard): self._own()}}
                temporary.write_text(json.dumps(state, indent=1), encoding="utf-8")
                os.replace(temporary, path)
        except OSError:
            return


def read_state(path: Path) -> State:
    """What is in a state file; empty where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    is_state = isinstance(found, dict) and found.get("version") == STATE_VERSION and isinstance(found.get("shards"), dict)
    return found if is_state else {}


def described(own: State, shard: int | str) -> str:
    """A line on one shard."""
    failed = sum(own["statuses"].get(name, 0) for name in _FAILED)
    left = "" if own["seconds_left"] is None else f", {duration(own['seconds_left'])} left"
    done = f"{own['done']} of {own['total']} records, {failed} failed"
    return f"{own['host']} shard {shard}: {done}, {own['rate']:.2f} records/s{left}"
