"""Processes that agree on their last step, over a store of this test's."""

import random
import threading
import time

import jax
import pytest

from judgelm_jax.processes import stop, store


class Shared:
    """What several threads, as processes, see of the key-value store: a name is set once, and waited for.

    A second of waiting takes a hundredth.
    """

    def __init__(self, count):
        self.values, self.changed, self.number, self.processes = {}, threading.Condition(), threading.local(), count

    def put(self, key, value):
        with self.changed:
            if key in self.values:
                raise jax.errors.JaxRuntimeError("ALREADY_EXISTS")
            self.values[key] = value
            self.changed.notify_all()

    def wait(self, key, seconds):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.values, min(seconds / 100, 10)):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED")
            return self.values[key]


def run(asked, together, monkeypatch, steps=12):
    """The last step of each of three processes and the signal it knows, where process i is asked at step asked[i]."""
    shared, meeting = Shared(3), threading.Barrier(3)
    own = {}
    monkeypatch.setattr(store, "are_joined", lambda: True)
    monkeypatch.setattr(store, "put", shared.put)
    monkeypatch.setattr(store, "wait", shared.wait)
    monkeypatch.setattr(store, "count", lambda: 3)
    monkeypatch.setattr(store, "own", lambda: own[threading.current_thread()])
    real_agree = stop.Stop._agree
    ended = {}

    def train(number):
        def agree(self):
            own[threading.current_thread()] = number
            real_agree(self)

        one = type("Stop", (stop.Stop,), {"_agree": agree})()
        draw = random.Random(number)
        for step in range(1, steps + 1):
            if together:  # what devices compute together: nobody is more than a step ahead
                meeting.wait(10)
            time.sleep(draw.random() * 0.003)
            if one.after(step, 15 if number in asked and step >= asked[number] else None):
                break
            time.sleep(0.01)
        ended[number] = step, one.signal

    threads = [threading.Thread(target=train, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return [ended.get(number) for number in range(3)]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("asked", [{0: 3}, {2: 3}, {0: 3, 1: 3}, {0: 4, 1: 5, 2: 3}])
def test_all_stop_after_the_same_step_soon_after_one_is_asked(asked, together, monkeypatch):
    first, *others = run(asked, together, monkeypatch)
    assert first == others[0] == others[1]
    step, number = first
    assert min(asked.values()) < step < 12
    assert number == 15


def test_a_process_that_answers_late_is_waited_for(monkeypatch):
    put = Shared.put

    def late(self, key, value):
        if key == "stop/2":
            time.sleep(1.5)  # as 150 s of saving would
        put(self, key, value)

    monkeypatch.setattr(Shared, "put", late)
    first, *others = run({0: 3}, False, monkeypatch)
    assert first == others[0] == others[1]
    assert first[0] < 12
    assert first[1] == 15


def test_nobody_stops_who_is_not_asked(monkeypatch):
    assert run({}, True, monkeypatch) == [(12, None)] * 3


def test_one_process_stops_at_once():
    alone = stop.Stop()
    assert [alone.after(1, None), alone.after(2, 2)] == [False, True]
    assert alone.signal == 2
