"""Ports for the servers of tests: no port is given twice, also not to the other workers of a run.

A port that the system gives out, as it does for port 0, is free again as soon as it is known: two runs that start at the same
time may be given the same one, or a connection of somebody else may take it. So these lie below those that the system gives
out, and one counter of the user deals them.
"""

import fcntl
import socket
from pathlib import Path

_FIRST, _COUNT = 20_000, 10_000  # Linux gives out those from 32768
_COUNTER = Path.home() / ".cache/judgelm_jax/tests.port"  # no temporary folder: TMPDIR differs, and strangers write to it


def free_port() -> int:
    _COUNTER.parent.mkdir(parents=True, exist_ok=True)
    with _COUNTER.open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        last = int(counter.read() or 0)
        for offset in range(1, _COUNT):
            port = _FIRST + (last + offset) % _COUNT
            if _is_free(port):
                counter.truncate(0)
                counter.write(str(port - _FIRST))
                return port
    raise OSError(f"no port from {_FIRST} to {_FIRST + _COUNT - 1} is free")


def _is_free(port: int) -> bool:
    with socket.socket() as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind(("", port))
        except OSError:
            return False
    return True
