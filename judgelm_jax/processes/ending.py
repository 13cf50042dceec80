"""The processes of a run end together: with the line and the exit code of the one that failed, or when all are done."""

import contextlib
import os
import time
import traceback
from collections.abc import Callable, Iterator

import jax

from judgelm_jax.errors import InputError
from judgelm_jax.processes import joining, store
from judgelm_jax.processes.process_flags import Asked
from judgelm_jax.processes.watching import LOST_SECONDS, Watch, tidy

_LEAVE_SECONDS = 10.0
_INTERRUPTED = 130
_UNEXPECTED = 1
_watch: Watch | None = None  # of this process, when it is one of several


@contextlib.contextmanager
def together(asked: Asked | None, describe: Callable[[BaseException], str]) -> Iterator[None]:
    """Joins the processes of a run for the block, before JAX starts; None: this is the only one.

    An error in the block ends all processes: the others with its line, as `describe` gives it, and its exit code. So does a
    process that is lost, with exit code 3. Afterwards this process must `leave`.

    Raises:
      InputError: the cluster does not say who is who, or the processes differ in what they were told.
      PeerError: process 0 does not answer.
    """
    global _watch
    if asked is None:
        yield
        return
    _watch = Watch(asked.command, asked.seconds)
    try:
        joining.join(asked, _watch)
        yield
    except SystemExit:  # all of them stop
        raise
    except BaseException as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            time.sleep(LOST_SECONDS + _LEAVE_SECONDS)  # what computes together fails when another is lost, who is named soon
        tell(describe(error), _code(error))
        if _code(error) == _UNEXPECTED:  # Python's own end would wait for JAX, which waits for the others
            traceback.print_exception(error)
            leave(_UNEXPECTED)
        raise


def tell(line: str, code: int) -> None:
    """Ends the other processes with this line and exit code; returns when they know it, or do not answer."""
    if _watch is not None:
        _watch.fail(f"process {_watch.own} on {store.host()}: {line}", code)


def leave(code: int) -> int:
    """The exit code. One of several processes ends here, when all are done or one has failed: JAX itself would wait at exit for
    those that are lost."""
    if _watch is None:
        return code
    _watch.finish()
    tidy()
    os._exit(code)


def _code(error: BaseException) -> int:
    if isinstance(error, InputError):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    return InputError.exit_code if isinstance(error, OSError) else _UNEXPECTED
