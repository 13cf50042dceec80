"""The key-value store that the processes of a run share. It lives in process 0; JAX has no public name for it."""

import itertools
import socket
from typing import Any

from jax._src import distributed

_PREFIX = "judgelm"
LONG = 7 * 24 * 3600.0  # s; a process that is lost ends the others much earlier
_meetings = itertools.count()  # a name is good once, and all processes meet in the same order


def are_joined() -> bool:
    """Whether this is one of several processes."""
    return distributed.global_state.client is not None


def own() -> int:
    """The number of this process."""
    return distributed.global_state.process_id


def count() -> int:
    """The number of processes."""
    return distributed.global_state.num_processes


def host() -> str:
    """The name of this host, as others are told it."""
    return socket.gethostname()


def put(key: str, value: str) -> None:
    """Sets a value that there is none of yet."""
    _client().key_value_set(f"{_PREFIX}/{key}", value)


def wait(key: str, seconds: float) -> str:
    """The value, once there is one. Raises a `JaxRuntimeError` when there is none in time."""
    return _client().blocking_key_value_get(f"{_PREFIX}/{key}", int(seconds * 1000))


def barrier(name: str, seconds: float) -> None:
    """Waits until all processes are here. Raises a `JaxRuntimeError` when they are not in time."""
    _client().wait_at_barrier(f"{_PREFIX}/{name}", int(seconds * 1000))


def wait_for_all(what: str) -> None:
    """Waits for all processes, however long one takes: what devices compute together gives up after a while (on CPUs 30 s)."""
    if are_joined():
        barrier(f"all/{next(_meetings)}/{what}", LONG)


def _client() -> Any:
    return distributed.global_state.client
