"""A warm process behaves as one that Python started."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import warm_processes
from processes import environment

PROGRAMS = {
    "arguments and code": "import sys; print(sys.argv); sys.exit(3)",
    "standard input": "print(input() * 2)",
    "a traceback": "def fail(): return 1 / 0\nfail()",
    "a signal": "import os; os.kill(os.getpid(), 9)",
    "what is left at the end": (
        "import atexit, threading, time\natexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()"
    ),
    "the environment": "import os; print(os.environ['OWN'], os.getcwd(), 'WARM_WORKER' in os.environ)",
    "what was changed on the way": (
        "import signal, sys, warnings\nprint([signal.getsignal(s) for s in (signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE)])\n"
        "print(signal.set_wakeup_fd(-1), sys.path[0], sorted(set(globals()) - {'__cached__'}))\n"
        "with warnings.catch_warnings(record=True) as seen: warnings.warn('x', UserWarning)\nprint(len(seen))\n"
        "file = open('/dev/null'); del file"
    ),
    "a module of its own": (
        "import dataclasses, pickle\nfactor = 3\n@dataclasses.dataclass\nclass A:\n  a: int\n"
        "print([factor * i for i in range(2)], pickle.loads(pickle.dumps(A(2))), __name__)"
    ),
}


def exists(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_it_does_what_python_does(program, tmp_path):
    own = environment(OWN="own")
    arguments = (program, "a b", "'")
    found = [
        subprocess.run(command, env=own, cwd=tmp_path, input="in\n", capture_output=True, text=True)
        for command in (warm_processes.command(own, *arguments), [sys.executable, "-c", *arguments])
    ]
    assert found[0].returncode == found[1].returncode
    assert found[0].stdout == found[1].stdout
    assert found[0].stderr.splitlines()[-1:] == found[1].stderr.splitlines()[-1:]


def test_a_signal_goes_to_the_worker():
    process = warm_processes.Process(environment(), "import time; time.sleep(100)")
    process.kill()
    assert process.wait(30) == -signal.SIGKILL


def test_a_worker_dies_with_the_one_who_called():
    process = warm_processes.Process(environment(), "import time; time.sleep(100)")
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    until = time.monotonic() + 30
    while exists(process.worker):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_who_asks_and_dies_keeps_nobody_waiting():
    server = warm_processes.Server(environment())  # of its own: others go on with theirs
    for said in (b"", b"\n", b'\n{"program": '):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(server.address)
            socket.send_fds(connection, [said], [0, 1, 2]) if said else None
    start = time.monotonic()
    server.close()
    assert time.monotonic() - start < 10


def test_strings_hash_otherwise_the_next_time():
    found = []
    for _ in range(2):
        process = warm_processes.Process(environment(), "print(hash('a'))", stdout=subprocess.PIPE)
        found.append(process.communicate(timeout=30)[0])
    assert found[0] != found[1]
