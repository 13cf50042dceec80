"""The processes of one run: they come together, agree on what they run, and end together.

What they say to each other goes through the key-value store of JAX's coordinator, in process 0, and needs no device: a
collective among processes that do not agree would wait for ever. JAX has no public name for that store.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax._src import distributed
from jax.experimental import multihost_utils

from judgelm_jax.errors import InputError, PeerError

JOIN_SECONDS = 120.0  # how long processes wait for each other at the start
_COMPARE_SECONDS = 1800.0  # one may read its files much slower than another
_POLL_SECONDS = 1.0
_LEAVE_SECONDS = 10.0
_FAILURE = "judgelm/failure"
_SHOWN = 3


def join(coordinator: str | None, processes: int | None, process: int | None, seconds: float = JOIN_SECONDS) -> None:
    """Joins the processes of one run before JAX starts; without the first three arguments, as the cluster's environment says.

    Ends the process with exit code 3 and a line where the others do not come: JAX itself would abort it.

    Raises:
      InputError: an argument is wrong, or the processes disagree on how many they are.
      PeerError: nothing answers at `coordinator`.
    """
    if coordinator is not None:
        assert processes is not None
        assert process is not None
        if process >= processes:
            raise InputError(f"--process={process}: must be below --processes={processes}; count from 0")
        host, port = _address(coordinator)
        if process == 0:
            _check_free(coordinator, port)
        else:
            _reach(coordinator, host, port, seconds)
    who = "" if process is None else f" (this is process {process} of {processes})"
    late = threading.Timer(
        seconds,
        _end,
        [f"not all processes of the run came within {seconds:.0f} s{who}; start each once, with the same --coordinator", 3],
    )
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(coordinator, processes, process, initialization_timeout=int(seconds) + 60)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the processes did not come together ({_first_line(error)}); give --coordinator, --processes and --process the "
            "right values"
        ) from error
    finally:
        late.cancel()
    compare("how many they are", {"--processes": distributed.global_state.num_processes})


def are_joined() -> bool:
    """Whether this is one of several processes."""
    return distributed.global_state.client is not None


def wait_for_all(what: str) -> None:
    """Waits for all processes, with their devices."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def compare(what: str, facts: Mapping[str, Any]) -> None:
    """Returns in all processes when each has the same `facts` (JSON values by name) as process 0.

    Raises:
      InputError: names the facts that differ, and this process.
      PeerError: another process did not come to this point.
    """
    if not are_joined():
        return
    client: Any = distributed.global_state.client
    own = distributed.global_state.process_id
    key, milliseconds = f"judgelm/compare/{what}", int(_COMPARE_SECONDS * 1000)
    try:
        if own == 0:
            client.key_value_set(key, json.dumps(facts))
        first = json.loads(client.blocking_key_value_get(key, milliseconds))
        different = [name for name in {**facts, **first} if facts.get(name, "unknown") != first.get(name, "unknown")]
        if different:
            said = [f"{n} is {_value(facts, n)} in process {own} and {_value(first, n)} in process 0" for n in different]
            more = f", and {len(different) - _SHOWN} more differ" if len(different) > _SHOWN else ""
            raise InputError(f"the processes differ in {what}: {', '.join(said[:_SHOWN])}{more}; give all of them the same")
        client.wait_at_barrier(key, milliseconds)
    except jax.errors.JaxRuntimeError as error:
        raise PeerError(f"another process did not come to compare {what} ({_first_line(error)}); look at its output") from error


@contextlib.contextmanager
def ending_together(describe: Callable[[BaseException], str]) -> Iterator[None]:
    """An error in the block ends all processes: the others with its line, as `describe` gives it, and its exit code.

    Afterwards this process must `leave`.
    """
    if not are_joined():
        yield
        return
    done = threading.Event()
    threading.Thread(target=_watch, args=[done], name="peers", daemon=True).start()
    try:
        yield
    except SystemExit:  # all of them stop
        raise
    except BaseException as error:
        code = error.exit_code if isinstance(error, InputError) else InputError.exit_code if isinstance(error, OSError) else 1
        tell(describe(error), code)
        raise
    finally:
        done.set()


def tell(line: str, code: int) -> None:
    """Ends the other processes with this line and exit code; returns when they know it, or do not answer."""
    if not are_joined():
        return
    state: Any = distributed.global_state
    failure = json.dumps({"process": state.process_id, "line": line, "code": code})
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the first failure counts
        state.client.key_value_set(_FAILURE, failure)
    _acknowledge()


def leave(code: int) -> int:
    """The exit code. Where it is not 0, one of several processes ends here: JAX would wait for the others at exit."""
    if code and are_joined():
        _flush()
        os._exit(code)
    return code


def _watch(done: threading.Event) -> None:
    """Ends this process when another one failed."""
    state: Any = distributed.global_state
    while not done.wait(_POLL_SECONDS):
        try:
            failure = json.loads(state.client.key_value_try_get(_FAILURE))
        except jax.errors.JaxRuntimeError:  # there is none
            continue
        if failure["process"] != state.process_id:
            _acknowledge()
            _end(f"process {failure['process']} of the run: {failure['line']}", failure["code"])
        return


def _acknowledge() -> None:
    """Says that this process knows; process 0, whose end takes the store away, waits until all do."""
    state: Any = distributed.global_state
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        state.client.key_value_set(f"{_FAILURE}/known/{state.process_id}", "", allow_overwrite=True)
        if state.process_id == 0:
            until = time.monotonic() + _LEAVE_SECONDS
            for other in range(1, state.num_processes):
                left = max(0.1, until - time.monotonic())
                state.client.blocking_key_value_get(f"{_FAILURE}/known/{other}", int(left * 1000))


def _address(coordinator: str) -> tuple[str, int]:
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise InputError(f"--coordinator={coordinator}: must be HOST:PORT of process 0, as 10.0.0.1:1234")
    return host.strip("[]"), int(port)


def _check_free(coordinator: str, port: int) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind(("", port))
        except OSError as error:
            raise InputError(
                f"--coordinator={coordinator}: process 0 cannot listen there ({error.strerror}); choose another port"
            ) from error


def _reach(coordinator: str, host: str, port: int, seconds: float) -> None:
    """Waits until process 0 listens."""
    begun, told = time.monotonic(), False
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except (OSError, UnicodeError) as error:
            waited, reason = time.monotonic() - begun, getattr(error, "strerror", None) or str(error)
            if waited > seconds:
                raise PeerError(
                    f"--coordinator={coordinator}: process 0 does not answer there ({reason}, after {seconds:.0f} s); start "
                    "it, or give its address"
                ) from error
        if not told and waited > 5:
            told = True
            print(f"waiting for process 0 at {coordinator} ({reason})", file=sys.stderr, flush=True)
        time.sleep(0.5)


def _end(line: str, code: int) -> None:
    print(f"\njudgelm: {line}" if sys.stderr.isatty() else f"judgelm: {line}", file=sys.stderr)
    _flush()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _value(facts: Mapping[str, Any], name: str) -> str:
    text = str(facts.get(name, "unknown"))
    return text if len(text) <= 70 else text[:67] + "..."


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
