"""Ctrl-C at a console command, in processes of their own: one line, exit code 130, whatever the main thread does."""

import signal
import subprocess
import sys
import time

import pytest

# A command whose `entry` does what a test wants.
START = """
import gc, os, sys, threading, time, types
from judgelm_jax import starting
starting._GRACE = 0.5
from judgelm_jax.commands import command_line
def main():
{body}
def entry():
  from absl import flags
  return command_line.run(main, flags.FlagValues(), 'fake', [])
command = types.ModuleType('judgelm_jax.commands.fake', 'does something.')
command.entry, main.__module__ = entry, command.__name__
sys.modules[command.__name__] = command
sys.exit(starting.fake())
"""

# A KeyboardInterrupt would be forgotten in the first two, never be raised in the third, and leave a traceback in the fourth.
BUSY = {
    "garbage collector": "gc.callbacks.append(lambda *_: time.sleep(0.001))\nwhile True: gc.collect()",
    "catches all": "while True:\n  try: time.sleep(0.001)\n  except BaseException: pass",
    "native code": "lock = threading.Lock(); lock.acquire()\nwhile True: lock.acquire(timeout=60)",
    "import": "sys.path.insert(0, {folder!r})\nimport slow_to_import",
    "Python code": "while True: pass",
}


def started(body, **options):
    inner = "\n".join("  " + line for line in f"print(flush=True)\n{body}".splitlines())
    process = subprocess.Popen(
        [sys.executable, "-c", START.format(body=inner)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    process.stdout.readline()
    return process


@pytest.mark.parametrize("busy", BUSY)
def test_sigint_is_one_line_and_130_whatever_the_main_thread_does(busy, tmp_path):
    (tmp_path / "slow_to_import.py").write_text("import time\ntry: time.sleep(60)\nexcept BaseException: pass\ntime.sleep(60)")
    process = started(BUSY[busy].replace("{folder!r}", repr(str(tmp_path))))
    time.sleep(0.1 if busy == "import" else 0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("judgelm-fake: interrupted\n")
    if busy != "garbage collector":  # there Python says what it forgets
        assert err == "judgelm-fake: interrupted\n"


def test_a_second_sigint_does_not_wait():
    process = started("starting._GRACE = 60\n" + BUSY["native code"])
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert (process.returncode, err) == (130, "judgelm-fake: interrupted\n")


def test_a_background_job_of_a_script_hears_sigint():
    process = started(BUSY["Python code"], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130


def test_what_was_printed_before_is_not_lost():
    process = started(f"print('judged 3 records'); os.kill(os.getpid(), {int(signal.SIGINT)})\n" + BUSY["native code"])
    assert process.stdout.read() == "judged 3 records\n"  # not `communicate`, which forgets what readline read ahead
    assert process.wait(30) == 130


def test_standard_output_that_nobody_reads_keeps_no_process_alive():
    process = started("print('x' * 10_000_000, flush=True)")
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert process.stderr.read().endswith("judgelm-fake: interrupted\n")


@pytest.mark.parametrize("end", ["pass", "raise SystemExit(3)"])
def test_the_code_of_the_command_is_that_of_the_process(end):
    process = started(end)
    process.communicate(timeout=30)
    assert process.returncode == {"pass": 0, "raise SystemExit(3)": 3}[end]


def test_behind_the_line_of_bad_input_nothing_is_said():
    body = """
from judgelm_jax.errors import InputError
noise = lambda: (time.sleep(0.3), os.write(2, b'noise'), print('noise', file=sys.stderr))
threading.Thread(target=noise).start()
raise InputError('f:1: bad; mend it')"""
    process = started(body)
    err = process.communicate(timeout=30)[1]
    assert (process.returncode, err) == (2, "judgelm-fake: f:1: bad; mend it\n")


def test_sigint_after_the_work_is_done_changes_nothing():
    process = started("import atexit; atexit.register(lambda: (print('done', flush=True), time.sleep(60)))")
    assert process.stdout.readline() == "done\n"
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=30)[1]
    assert (process.returncode, err) == (0, "")


def test_no_command_is_begun_by_a_private_name():
    code = "import judgelm_jax.starting as s; assert not hasattr(s, '_judge') and callable(s.judge)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_from_the_first_import_on_there_is_no_traceback():
    code = "import os, signal, sys; from judgelm_jax import starting; os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "-c: interrupted\n")
