"""How much is computed at once follows from the memory of a device, and verdicts do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.devices import memory
from judgelm_jax.errors import InputError

from .test_engine import make_engine, random_prompts, responses

NEW = 12


@pytest.fixture(scope="module")
def prompts():
    return random_prompts(24)


def needs(engine):
    """Bytes of the parameters, and the most that a compiled program needs beside them, with the slots that it decodes in."""
    programs = engine.programs
    needed = []
    for key, program in programs._compiled.items():
        state = memory.bytes_on_device(programs._state_shapes(*key[1:3])) if key[0] in ("admit", "decode") else 0
        needed += [] if key[0] == "empty" else [state + memory.beside_arguments(program)]
    return memory.bytes_on_device(engine.params), max(needed)


@pytest.mark.parametrize("mode", ["scores", "explain"])
def test_less_memory_means_less_at_once_and_the_same_responses(laboratory_checkpoint, one_device, prompts, mode):
    settings = {"mode": mode, "max_new_tokens": NEW}
    free = make_engine(laboratory_checkpoint, one_device, device_memory=4.0, **settings)
    expected = responses(free, prompts)
    held, most = needs(free)
    small = (held + 0.6 * most) / memory.GIB
    tight = make_engine(laboratory_checkpoint, one_device, device_memory=small, **settings)
    assert responses(tight, prompts) == expected
    assert needs(tight)[1] <= 0.6 * most
    assert responses(tight, prompts) == expected  # and compiles nothing anew
    assert tight.counts.programs <= 2 * len(tight.programs._compiled)


@pytest.mark.parametrize("mode", ["scores", "explain"])
def test_what_fits_nowhere_is_one_line_that_says_what_would(laboratory_checkpoint, one_device, prompts, mode):
    engine = make_engine(laboratory_checkpoint, one_device, mode=mode, max_new_tokens=NEW, device_memory=1e-5)
    with pytest.raises(InputError, match=r"GiB of a device do not suffice: the parameters take .*; it fits in ") as caught:
        responses(engine, prompts)
    assert "\n" not in str(caught.value)
    enough = float(str(caught.value).split("it fits in ")[1].split()[0])
    assert enough < 1
    assert responses(
        make_engine(laboratory_checkpoint, one_device, mode=mode, max_new_tokens=NEW, device_memory=enough), prompts
    )


@given(size=st.integers(1, 2**40))
def test_a_size_that_is_shown_suffices(size):
    said = float(memory.shown(size).removesuffix(" GiB")) * memory.GIB
    assert size * (1 - 1e-9) <= said <= size * 1.011


def test_memory_that_ends_while_a_program_runs_is_one_line():
    """As the runtime says it: an array that no machine can hold."""
    import jax.numpy as jnp

    with pytest.raises(InputError, match="the memory of a device has ended; take less"), memory.explained(lambda: "take less"):
        jnp.zeros((1 << 50,), jnp.float32).block_until_ready()
    with pytest.raises(ValueError, match="another"), memory.explained(lambda: "take less"):
        raise ValueError("another matter")
