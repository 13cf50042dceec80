"""The checkpoints of a training run: state and position in the data together, saved in the background, whole or not at all."""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from judgelm_jax.checkpoints.orbax_store import FORMAT, METADATA_FILE, quietly
from judgelm_jax.errors import InputError

STATE = "state"  # what Orbax calls the saved tree
METRIC = "chosen"  # its own step, of a checkpoint that was chosen when it was saved: the last of these is the best
LAYOUT = "stacked"

_UNFINISHED = ".orbax-checkpoint-tmp"  # ends the name of a folder that Orbax is writing


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored run: its state, the number of steps behind it, the state of the iterator over the data, and what was said of
    the step that was chosen so far."""

    step: int
    state: Any
    iterator: dict[str, Any]
    choice: dict[str, Any] | None


class TrainingCheckpoints:
    """The folder `RUN/checkpoints`, one folder a saved step. Every process calls every method, in the same order."""

    def __init__(self, folder: Path, keep: int, best: bool, about: Mapping[str, Any]):
        """Keeps the last `keep` checkpoints and, with `best`, the one that was chosen last.

        `about` (JSON) describes the run in the metadata of each checkpoint; what a killed save left behind is removed.
        """
        policies = ocp.training.preservation_policies
        kept: list[Any] = [policies.LatestN(keep)]
        if best:
            kept.append(
                policies.BestN(get_metric_fn=lambda metrics: metrics[METRIC], n=1, keep_checkpoints_without_metrics=False)
            )
        self._about = {**FORMAT, "layout": LAYOUT, **about}
        self._folder = folder.absolute()
        if jax.process_index() == 0:
            for half in self._folder.glob(f"*{_UNFINISHED}*"):  # Orbax itself leaves them where no save of that step follows
                shutil.rmtree(half, ignore_errors=True)
        policy = policies.AnyPreservationPolicy(kept)
        # It reads the metadata of all steps, and would log each fault in them.
        self._checkpointer = quietly(functools.partial(ocp.training.Checkpointer, self._folder, preservation_policy=policy))
        self._saving: Any = None  # Orbax's response to the last save

    def __enter__(self) -> "TrainingCheckpoints":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            self.close()
        else:
            with contextlib.suppress(Exception):  # the error that ends the block counts
                self.close()

    @property
    def latest(self) -> int | None:
        """The last saved step."""
        return None if self._checkpointer.latest is None else self._checkpointer.latest.step

    def path(self, step: int) -> Path:
        """The folder of a saved step."""
        return self._folder / str(step)

    def save(
        self, step: int, state: Any, iterator: Mapping[str, Any], choice: Mapping[str, Any] | None = None, best: bool = False
    ) -> None:
        """Starts to write; the state may be donated to the next step at once. Waits for the save before, if it still runs.

        Args:
          choice: JSON values, given back by `restore`: which step is chosen so far, and why.
          best: it is this one.

        Raises:
          InputError: that one or this one cannot be written.
        """
        metadata = {**self._about, "iterator": dict(iterator), "choice": None if choice is None else dict(choice)}
        metrics = {METRIC: step} if best else None
        self.wait()
        try:
            self._saving = self._checkpointer.save_checkpointables_async(
                step, {STATE: state}, force=True, metrics=metrics, custom_metadata=metadata
            )
        except Exception as error:
            raise self._unwritten(error) from error

    def check(self) -> None:
        """Raises as `save` where the last save has failed meanwhile; does not wait."""
        with contextlib.suppress(TimeoutError):  # it still runs
            self._settle(0)

    def wait(self) -> None:
        """Waits until everything is on disk. Raises as `save`."""
        self._settle(None)
        try:
            self._checkpointer.wait()
        except Exception as error:
            raise self._unwritten(error) from error

    def restore(self, abstract_state: Any) -> Restored | None:
        """The last checkpoint, placed as the leaves of `abstract_state` say; None where there is none.

        Raises:
          InputError: it does not have exactly these leaves, shapes and dtypes, or is broken.
        """
        if self.latest is None:
            return None
        step = self.latest
        try:
            metadata = quietly(functools.partial(self._checkpointer.checkpointables_metadata, step))
            custom = metadata.custom_metadata or {}
            if "iterator" not in custom:
                raise ValueError(f"{METADATA_FILE} is missing, empty or damaged")
            if not jax.tree.leaves(metadata.metadata.get(STATE)):
                raise ValueError("the list of its arrays is missing or damaged")
            _check_same(metadata.metadata[STATE], abstract_state)
            load = functools.partial(self._checkpointer.load_checkpointables, step, {STATE: abstract_state})
            state = quietly(load)[STATE]
        except jax.errors.JaxRuntimeError:  # the devices, not the files
            raise
        except Exception as error:
            # What Orbax says of damaged data is about its handlers.
            reason = "its data are damaged" if isinstance(error, OSError) else _line(error)
            raise InputError(
                f"{self.path(step)}: cannot be restored ({reason}); remove this folder to go on from the checkpoint before"
            ) from error
        return Restored(step, state, custom["iterator"], custom.get("choice"))

    def close(self) -> None:
        """Waits and frees what Orbax holds. Raises as `save`."""
        self.wait()
        self._checkpointer.close()

    def _settle(self, seconds: float | None) -> None:
        """Raises as `save` for the last save, TimeoutError where it is not over in time."""
        saving = self._saving
        if saving is None:
            return
        try:
            saving.result(seconds)
        except TimeoutError:
            raise
        except Exception as error:
            self._saving = None
            raise self._unwritten(error) from error
        self._saving = None

    def _unwritten(self, error: Exception) -> InputError:
        full = any(sign in str(error) for sign in ("No space left", "Disk quota exceeded", "ENOSPC", "RESOURCE_EXHAUSTED"))
        reason = "the disk is full; free space" if full else f"a checkpoint could not be written ({_line(error)}); fix that"
        return InputError(f"{self._folder}: {reason} and run again with --resume, earlier checkpoints are whole")


def _check_same(stored: Any, wanted: Any) -> None:
    """Raises a ValueError where leaves differ in name, shape or dtype; Orbax itself would cast."""

    def described(tree: Any) -> dict[str, str]:
        leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))[0]
        return {jax.tree_util.keystr(path, simple=True, separator="."): f"{x.dtype}{list(x.shape)}" for path, x in leaves}

    ours, theirs = described(wanted), described(stored)
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if different:
        name = different[0]
        raise ValueError(f"{name} is {theirs.get(name, 'missing')} there and {ours.get(name, 'not wanted')} in this run")


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
