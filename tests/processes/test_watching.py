"""Processes that only watch each other: who is waited for, and how all end when one does. None of them starts JAX."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from free_ports import free_port
from several_processes import end

from judgelm_jax.processes import connections

PROGRAM = """
import socket, sys, time
own, count, port, work, seconds = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], float(sys.argv[5])
from judgelm_jax.processes import connections, watching
watching._TELL_SECONDS = 1
watch = watching.Watch("meet", seconds)
facts = {"host": "host-" + str(own)}
address, path = connections.local_address()
if own == 0:
    watch.begin(0, count, facts, None)
    connections.receive(port, path, watch.attend)
else:
    while True:
        try:
            channel = connections.Channel(socket.create_connection(("127.0.0.1", port)))
            break
        except OSError:
            time.sleep(0.05)
    watch.begin(own, count, facts, channel)
watch.wait_for_all()
assert [watch.here[other]["host"] for other in range(count)] == ["host-" + str(other) for other in range(count)]
print("all here", flush=True)
code = 0
if work.startswith("fail"):
    if own == int(work[4:]):
        watch.fail(f"process {own} on host-{own}: the disk is full", 2)
        code = 2
    else:
        time.sleep(60)
elif work == "wait":
    time.sleep(300)
elif own == count - 1:
    time.sleep(1)  # the others wait for it
watch.finish()
watching.tidy()
assert "jax" not in sys.modules
assert not path.parent.exists()
watching.os._exit(code)
"""


def meet(work, numbers, seconds=60.0, port=None):
    """Starts processes `(number, of how many)` of one run."""
    port = port or free_port()
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(own), str(count), str(port), work, str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for own, count in numbers
    ]


THREE = [(0, 3), (1, 3), (2, 3)]


def test_all_end_when_all_are_done():
    for code, out, err in end(meet("well", THREE)):
        assert (code, out, err) == (0, "all here\n", "")


@pytest.mark.parametrize("failing", [0, 1])
def test_a_failure_ends_all_with_its_line_and_code(failing):
    for number, (code, _, err) in enumerate(end(meet(f"fail{failing}", THREE))):
        assert code == 2
        assert err == ("" if number == failing else f"judgelm-meet: process {failing} on host-{failing}: the disk is full\n")


def test_who_is_missing_is_said_until_the_time_is_over():
    for number, (code, out, err) in enumerate(end(meet("well", [(0, 4), (2, 4)], seconds=2.5))):
        assert (code, out) == (3, "")
        *waiting, last = err.splitlines()
        assert last.startswith("judgelm-meet: processes 1, 3 of 4 did not come within 2 s")
        assert [line.partition(" (")[0] for line in waiting] == ["judgelm-meet: waiting for processes 1, 3 of 4"] * (
            0 if number else len(waiting)
        )
        assert bool(waiting) == (number == 0)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([(0, 2), (1, 3)], "--processes is 3 in process 1 on host-1 and 2 in process 0 on host-0; give all of them the same"),
        ([(0, 3), (1, 3), (1, 3)], "two processes are --process=1, on host-1 and on host-1; number them from 0 to 2"),
    ],
)
def test_numbers_that_do_not_fit_end_all(numbers, said):
    for code, out, err in end(meet("well", numbers)):
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
        assert said in err


def test_what_strangers_say_is_nothing_to_the_run():
    strangers = [b"{}", b"{torn", b'{"hello": 1, "of": 3, "facts": {}}', b'{"hello": 1, "of": 3, "facts": {"host": 7}}']
    strangers += [
        b'{"hello": 3, "of": 3, "facts": {"host": "x"}}',
        b'{"hello": "1"}\n[1]',
        b"GET / HTTP/1.1",
        b'{"failure": 1}',
    ]
    together = meet("well", THREE[:1])
    port = int(together[0].args[5])
    for said in strangers:
        for _ in range(200):
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as stranger:
                stranger.sendall(said + b"\n")
                stranger.settimeout(10)
                with contextlib.suppress(ConnectionResetError):
                    assert stranger.recv(1) == b""
                break
            threading.Event().wait(0.05)
    for code, out, err in end([*together, *meet("well", THREE[1:], port=port)]):
        assert (code, out, err) == (0, "all here\n", "")


def lost(how, victim):
    """How the others end, and in how many seconds, when a process is killed or stopped."""
    together = meet("wait", THREE)
    for process in together:
        assert process.stdout.readline() == "all here\n"
    together[victim].send_signal(how)
    try:
        return end([process for number, process in enumerate(together) if number != victim], timeout=60)
    finally:
        together[victim].kill()
        together[victim].communicate()


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_process_ends_all_at_once(victim):
    for code, _, err in lost(signal.SIGKILL, victim):
        assert code == 3
        again = "run the same command again with --resume to go on"
        assert err == f"judgelm-meet: process {victim} on host-{victim} was lost (its connection closed); {again}\n"


@pytest.mark.slow
def test_a_silent_process_ends_all_within_a_minute():
    with concurrent.futures.ThreadPoolExecutor() as pool:  # half a minute of waiting
        ended = pool.map(lambda victim: (victim, lost(signal.SIGSTOP, victim)), [0, 2])
    for victim, others in ended:
        for code, _, err in others:
            assert code == 3
            assert f"process {victim} on host-{victim} was lost (no sign of life for 30 s)" in err
            assert err.count("\n") == 1


def test_jax_s_bytes_come_to_its_service_and_its_connection_stays_open_when_that_is_gone():
    _, service = connections.local_address()
    _, local = connections.local_address()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(service))
    listening.listen()
    ended = threading.Event()

    def echo():
        there, _ = listening.accept()
        while data := there.recv(1000):
            if data == b"end":
                there.close()
                ended.set()
                return
            there.sendall(data[::-1])

    threading.Thread(target=echo, daemon=True).start()
    attended = []
    port = free_port()
    connections.receive(port, service, lambda channel: attended.extend(channel.messages()))
    connections.carry(local, "127.0.0.1", port)
    with socket.socket(socket.AF_UNIX) as jax:
        jax.connect(str(local))
        jax.sendall(b"PRI * HTTP/2.0")
        assert jax.recv(1000) == b"0.2/PTTH * IRP"
        jax.sendall(b"end")
        assert ended.wait(10)
        jax.settimeout(0.5)
        with pytest.raises(TimeoutError):
            jax.recv(1)
    with socket.create_connection(("127.0.0.1", port)) as other:
        other.sendall(b"GET / HTTP/1.1\r\n")
        other.settimeout(10)
        with contextlib.suppress(ConnectionResetError):
            assert other.recv(1) == b""
    with socket.create_connection(("127.0.0.1", port)) as ours:
        ours.sendall(b'{"here": true}\n{"torn')
    for _ in range(100):
        if attended:
            break
        threading.Event().wait(0.05)
    assert attended == [{"here": True}]
    with pytest.raises(OSError, match="in use"):
        connections.receive(port, service, lambda channel: None)
    assert os.stat(service.parent).st_mode & 0o077 == 0  # nobody else may enter
