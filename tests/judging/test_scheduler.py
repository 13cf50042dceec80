"""The scheduler of slots on a stubbed device, without a model: whatever comes, in whatever order it ends."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.judging.batching import Batch, Prompt, batches, bucket_lengths
from judgelm_jax.judging.responses import Counts
from judgelm_jax.judging.scheduler import DECODE_STEPS, schedule


def prompt_of(index, length):
    return Prompt(index, np.full(length, index, np.int32), np.zeros(2, np.uint32))


class Device:
    """Slots that hold (index, tokens of the prompt, tokens generated) until they are read. No slot is given away twice."""

    def __init__(self, slots, response_lengths):
        self.slots = [None] * slots
        self.response_lengths = response_lengths
        self.admitted = []  # the indices of prompts in the order in which they were admitted
        self.decoded = 0  # calls of `decode`

    def admit(self, batch, slots):
        assert len(slots) == batch.capacity
        real = dict(batch.prompts_by_index)
        assert len({int(slots[index]) for index in real}) == len(real)  # no two prompts in one slot
        for index, slot in enumerate(slots.tolist()):
            if index not in real:
                assert slot == len(self.slots)  # padding goes nowhere
                continue
            assert self.slots[slot] is None
            self.slots[slot] = [real[index].index, len(real[index].ids), 0]
            self.admitted.append(real[index].index)

    def done(self, slot):
        index, _, produced = self.slots[slot]
        return produced >= self.response_lengths[index]

    def decode(self):
        occupied = [slot for slot, held in enumerate(self.slots) if held is not None]
        assert occupied, "decoding with nothing to do"
        self.decoded += 1
        for slot in occupied:
            for _ in range(DECODE_STEPS):
                if not self.done(slot):
                    self.slots[slot][2] += 1
        return np.array([held is None or self.done(slot) for slot, held in enumerate(self.slots)])

    def read(self, slots):
        found = []
        for slot in slots:
            index, _, produced = self.slots[slot]
            assert self.done(slot)
            found.append(([index] * produced, "stop" if index % 2 else "length"))
            self.slots[slot] = None
        return found


work = st.lists(st.tuples(st.integers(1, 900), st.integers(0, 100)), max_size=40)  # tokens of prompt and response


def run(work, slots, together):
    prompts = [prompt_of(index, length) for index, (length, _) in enumerate(work)]
    sorted_batches = batches(prompts, bucket_lengths(1024), 2048, min(together, slots), 1)
    device = Device(slots, [response for _, response in work])
    counts = Counts()
    return list(schedule(sorted_batches, device, slots, counts)), device, counts, sorted_batches


@given(work=work, slots=st.integers(1, 12), together=st.integers(1, 12))
def test_every_prompt_is_admitted_once_and_gets_its_own_response(work, slots, together):
    found, device, counts, _ = run(work, slots, together)
    assert sorted(device.admitted) == list(range(len(work)))
    assert sorted(response.index for response in found) == list(range(len(work)))
    for response in found:
        assert response.ids == [response.index] * work[response.index][1]
        assert response.finish == ("stop" if response.index % 2 else "length")
    assert counts.generated_tokens == sum(response for _, response in work)
    assert counts.prompt_tokens == sum(length for length, _ in work)


@given(work=work, slots=st.integers(1, 12), together=st.integers(1, 12))
def test_batches_enter_in_their_order_the_longest_prompts_first(work, slots, together):
    _, device, _, sorted_batches = run(work, slots, together)
    assert device.admitted == [prompt.index for batch in sorted_batches for _, prompt in batch.prompts_by_index]
    octaves = [max(64, work[index][0] - 1).bit_length() for index in device.admitted]
    assert octaves == sorted(octaves, reverse=True)


@given(work=work, slots=st.integers(1, 12), together=st.integers(1, 12))
def test_it_takes_as_many_rounds_as_a_queue_that_is_simulated(work, slots, together):
    """Of each round: batches enter as long as they fit, everybody ages by a round, the finished leave."""
    _, device, counts, sorted_batches = run(work, slots, together)
    waiting = [[work[prompt.index][1] for _, prompt in batch.prompts_by_index] for batch in sorted_batches]
    inside, rounds, slot_steps = [], [], 0
    while waiting or inside:
        while waiting and len(inside) + len(waiting[0]) <= slots:
            inside += waiting.pop(0)
        rounds.append(len(inside))
        slot_steps += len(inside) * DECODE_STEPS
        inside = [left - DECODE_STEPS for left in inside if left > DECODE_STEPS]
    assert max(rounds, default=0) <= slots
    assert device.decoded == len(rounds)
    assert counts.slot_steps == len(rounds) * slots * DECODE_STEPS
    assert counts.busy_slot_steps == slot_steps


def test_a_batch_that_no_slots_could_hold_is_an_error():
    batch = Batch((tuple(prompt_of(index, 5) for index in range(3)),), 64, 3, 64)
    with pytest.raises(ValueError, match="more prompts than the 2 slots"):
        next(schedule([batch], Device(2, [1, 1, 1]), 2, Counts()))


def test_what_schedules_needs_no_jax():
    code = (
        "import sys; from judgelm_jax.judging import batching, config, responses, scheduler, sizing; "
        "assert 'jax' not in sys.modules and 'flax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
