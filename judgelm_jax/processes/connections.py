"""The connections between processes of a run: lines of JSON, and the bytes of JAX's own service.

JAX's own client aborts its process, with a native stack trace, when the connection to its service in process 0 breaks. So it
gets a socket of this host instead, which stays open and silent then. All comes to the one port of process 0: what begins as
gRPC does goes to JAX's service, everything else is for us.
"""

import contextlib
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_BYTES = 1 << 16
_CONNECT_SECONDS = 10.0
_DEAD_SECONDS = 20  # a host whose system does not answer for so long is gone

Message = dict[str, Any]

_folders: list[str] = []


class Channel:
    """Messages between this process and another one."""

    def __init__(self, connection: socket.socket):
        notice_a_dead_host(connection)
        self._connection, self._sending = connection, threading.Lock()

    def send(self, message: Message) -> None:
        """Sends a message, or nothing where nobody listens any more: `messages` ends then."""
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def messages(self) -> Iterator[Message]:
        """What the other process says, until it, its host or the network ends, or it says what no process of ours does."""
        with contextlib.suppress(OSError, ValueError), self._connection.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                if not isinstance(message, dict):  # nothing of ours
                    return
                yield message

    def close(self) -> None:
        """Ends `messages` on both sides."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)


def local_address() -> tuple[str, Path]:
    """The name of a new socket of this host, as gRPC takes it, and its path, in a folder that only this user may enter."""
    folder = tempfile.gettempdir()
    own = tempfile.mkdtemp(prefix="judgelm-", dir=folder if len(folder) < 60 else "/tmp")  # the names of sockets are short
    _folders.append(own)
    path = Path(own) / "jax"
    return f"unix:{path}", path


def remove_local_addresses() -> None:
    """Removes what `local_address` made, before the process ends."""
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


def receive(port: int, service: Path, attend: Callable[[Channel], None]) -> None:
    """Listens on a port, in threads: gRPC goes on to the socket at `service`, each other connection to `attend`.

    Raises:
      OSError: somebody listens there already.
    """
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    listening = socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6, backlog=1024)

    def welcome(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.settimeout(_CONNECT_SECONDS)
            first = connection.recv(1, socket.MSG_PEEK)
            connection.settimeout(None)
            if first == b"{":
                attend(Channel(connection))
            elif first == b"P":
                notice_a_dead_host(connection)
                there = socket.socket(socket.AF_UNIX)
                there.connect(str(service))
                _carry_both_ways(connection, there, closes=True)
                return
        connection.close()

    def accept() -> None:
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=welcome, args=[connection], name="peers", daemon=True).start()

    threading.Thread(target=accept, name="peers", daemon=True).start()


def carry(local: Path, host: str, port: int) -> None:
    """Listens at `local`, in threads, and carries what comes to `host`:`port` and back.

    The ends here stay open when the other ones close: JAX need not know.
    """
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(local))
    listening.listen()

    def accept() -> None:
        while True:
            here, _ = listening.accept()
            try:
                there = socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
            except OSError:
                here.close()  # JAX tries again while it may
                continue
            there.settimeout(None)
            notice_a_dead_host(there)
            _carry_both_ways(here, there, closes=False)

    threading.Thread(target=accept, name="peers", daemon=True).start()


def _carry_both_ways(one: socket.socket, other: socket.socket, closes: bool) -> None:
    """Carries bytes in two threads. When `one` ends so does `other`; the other way round only where it `closes`."""
    for source, sink, ends in ((one, other, True), (other, one, closes)):
        threading.Thread(target=_carry, args=[source, sink, ends], name="peers", daemon=True).start()


def _carry(source: socket.socket, sink: socket.socket, ends: bool) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_BYTES):
            sink.sendall(data)
    if ends:
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


def notice_a_dead_host(connection: socket.socket) -> None:
    """Ends the connection when the other host, or the network to it, is gone."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _DEAD_SECONDS // 2),
        ("TCP_KEEPINTVL", _DEAD_SECONDS // 4),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", 1000 * _DEAD_SECONDS),
    ):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
