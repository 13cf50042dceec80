"""Signals, in processes of their own: what ends at once, what asks the run to save, and that none is ever swallowed."""

import signal
import subprocess
import sys

import pytest

START = "import gc, sys, threading, time\nfrom judgelm_jax.stopping import listening\n"

# What the main thread is at when the signal comes. A KeyboardInterrupt would be forgotten in the first two (JAX registers such
# a callback of the garbage collector), and never be raised in the third.
BUSY = {
    "garbage collector": "gc.callbacks.append(lambda *_: time.sleep(0.001))\nwhile True: gc.collect()",
    "catches all": "while True:\n  try: time.sleep(0.001)\n  except BaseException: pass",
    "native code": "lock = threading.Lock(); lock.acquire()\nwhile True: lock.acquire(timeout=60)",
    "Python code": "while True: pass",
}


def start(body, before_end="lambda line, code: None", **options):
    inner = "\n".join("  " + line for line in f"print(flush=True)\n{body}".splitlines())
    code = f"{START}with listening('train', {before_end}) as stopping:\n{inner}\n"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    process.stdout.readline()
    return process


def ended(process):
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


@pytest.mark.parametrize("busy", BUSY)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_before_the_first_step_a_signal_ends_at_once_whatever_the_main_thread_does(busy, number, code):
    process = start(BUSY[busy])
    process.send_signal(number)
    name = signal.Signals(number).name
    line = f"judgelm-train: stopped by {name} before the first step: nothing is lost, run the same command again\n"
    assert ended(process) == (code, "", line)


def test_a_background_job_of_a_script_hears_sigint():
    process = start(BUSY["Python code"], preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130


def test_whoever_is_told_cannot_keep_the_process_alive():
    process = start(BUSY["Python code"], before_end="lambda line, code: 1 / 0")
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130


WAIT = (
    "stopping.save_first()\nprint(flush=True)\nwhile stopping.asked is None: time.sleep(0.001)\n"
    "print(stopping.asked, flush=True)\n"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_training_the_first_signal_asks_and_a_second_sigint_ends(number):
    process = start(WAIT + "while True: time.sleep(1)")
    process.stdout.readline()
    process.send_signal(number)
    assert int(process.stdout.readline()) == number
    process.send_signal(signal.SIGTERM)  # a cluster repeats it
    process.send_signal(signal.SIGINT)
    code, _, err = ended(process)
    assert code == 130
    assert err.endswith("without saving: run again with --resume to go on from the last saved step\n")


def test_after_the_last_step_a_signal_ends_at_once():
    process = start("stopping.save_first()\nstopping.all_saved()\nprint(flush=True)\nwhile True: time.sleep(1)")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 143
    assert "after the last step, which is saved: run again with --resume" in err


def test_a_signal_during_the_last_step_ends_when_that_is_saved():
    process = start(WAIT + "stopping.all_saved()\nwhile True: time.sleep(1)")
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 143
    assert "after the last step, which is saved: run again with --resume" in err


def test_afterwards_signals_mean_what_they_meant():
    code = START + "import signal\nbefore = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)\n"
    code += "with listening('train'): pass\n"
    code += "assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before\n"
    code += "assert signal.set_wakeup_fd(-1) == -1 and threading.active_count() == 1"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
