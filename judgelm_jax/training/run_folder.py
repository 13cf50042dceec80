"""The folder of a training run: whose it is, and that one training at a time writes to it.

```
RUN/
  lock                  held by the training that writes here
  run.json              the identity of the run
  tokenizer/            as training uses it
  metrics.jsonl         a line a step, an evaluation, an epoch
  tensorboard/          the same numbers
  profile/              with --profile
  checkpoints/          a folder a saved step
  model/, adapter/      what the run leaves in the end
```
A run has begun when a step is done. Until then nothing is lost when another run takes the folder, so one that was stopped
before its first step needs no --resume.
"""

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from judgelm_jax.checkpoints.opening import COMPANION_FILES
from judgelm_jax.checkpoints.orbax_store import TOKENIZER_FOLDER
from judgelm_jax.errors import InputError
from judgelm_jax.records.output_files import write_atomically
from judgelm_jax.training import identity
from judgelm_jax.training.identity import CHECKPOINTS, LOCK, METRICS_FILE, RUN_FILE

TENSORBOARD = "tensorboard"
PROFILE = "profile"

_OURS = {LOCK, RUN_FILE, TOKENIZER_FOLDER, METRICS_FILE, TENSORBOARD, PROFILE, CHECKPOINTS}


@contextlib.contextmanager
def claimed(output: Path, own: identity.Facts, tokenizer: Path, resume: bool) -> Iterator[None]:
    """Makes the folder of a run and holds its lock, or that of a run that may go on. For the first process.

    Args:
      own: the identity of the run.
      tokenizer: the folder that holds its tokenizer.

    Raises:
      InputError: something else exists there, or another run, or another process trains into it.
    """
    if output.exists() and not (output.is_dir() and _is_ours(output)):
        raise InputError(f"{output}: exists and holds no run; choose another --output")
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK).open("a") as file:
        _lock(file, output)
        if _has_begun(output):
            _check_same(output, own, resume)
        else:
            _begin(output, own, tokenizer)
        yield


def check_room(output: Path, state: Any, checkpoints: int) -> None:
    """Refuses a run whose checkpoints would not find room; one that has begun has some of them already.

    Args:
      state: the shapes of what a checkpoint holds.
      checkpoints: how many are kept.

    Raises:
      InputError: says how much is needed and how much is free.
    """
    if _has_begun(output):
        return
    one = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    needed = one * (checkpoints + 1)  # a new one is written before an old one goes
    free = shutil.disk_usage(next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())).free
    if free < needed:
        raise InputError(
            f"{output}: {checkpoints} checkpoints and the next one need {needed / 1e9:,.2f} GB, and {free / 1e9:,.2f} are "
            "free; free space, or lower --config.checkpoints.keep"
        )


def _is_ours(output: Path) -> bool:
    """Whether a run is or was about to be here: all of the names are a run's, or `run.json` is among them."""
    names = {path.name for path in output.iterdir() if not path.name.endswith(".tmp")}
    return RUN_FILE in names or names <= _OURS - {METRICS_FILE, CHECKPOINTS, TENSORBOARD, PROFILE}


def _has_begun(output: Path) -> bool:
    """Whether a step is done and told, or saved."""
    metrics, checkpoints = output / METRICS_FILE, output / CHECKPOINTS
    told = metrics.is_file() and metrics.stat().st_size > 0
    return told or (checkpoints.is_dir() and any(path.name.isdigit() for path in checkpoints.iterdir()))


def _lock(file: Any, output: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(f"{output}: another process trains into it; wait for it to end, or stop it") from error
    except OSError as error:
        error.filename = file.name
        raise


def _begin(output: Path, own: identity.Facts, tokenizer: Path) -> None:
    path = output / RUN_FILE
    path.unlink(missing_ok=True)  # of a run that never began
    folder = output / TOKENIZER_FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in COMPANION_FILES:
        if (tokenizer / name).is_file():
            shutil.copyfile(tokenizer / name, folder / name)
    with write_atomically(path) as file:
        json.dump(own, file, indent=1)


def _check_same(output: Path, own: identity.Facts, resume: bool) -> None:
    path = output / RUN_FILE
    if not resume:
        raise InputError(f"{output}: holds a run already; pass --resume to go on with it, or choose another --output")
    try:
        before = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); choose another --output") from error
    changed = identity.changes(before, own)
    if changed:
        said = [f"{identity.title(n)} is {identity.described(n, own)} and the run began with {identity.described(n, before)}"
                for n in changed]  # fmt: skip
        more = f", and {len(said) - 3} more differ" if len(said) > 3 else ""
        raise InputError(f"{output}: {', '.join(said[:3])}{more}; give what it began with, or choose another --output")
