from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.judging import sizing


@given(
    prompts=st.integers(1, 5000),
    context=st.integers(16, 4096),
    devices=st.sampled_from([1, 2, 8]),
    tokens=st.floats(0, 1e6),
    wanted=st.none() | st.integers(1, 300),
)
def test_slots_divide_over_the_devices_and_are_no_more_than_fit(prompts, context, devices, tokens, wanted):
    slots = sizing.slot_count(prompts, context, devices, tokens, wanted)
    assert slots % devices == 0
    if wanted is not None:
        assert wanted <= slots < wanted + devices
        return
    fits = max(4, min(256, int(tokens // context))) * devices
    assert 1 <= slots <= fits
    # No fewer rounds would do, and fewer slots would take more.
    rounds = -(-prompts // slots)
    assert rounds == -(-prompts // fits)
    assert slots == devices or -(-prompts // (slots - devices)) > rounds


@given(slots=st.integers(1, 300), devices=st.sampled_from([1, 2, 8]))
def test_prompts_that_enter_together_divide_over_the_devices(slots, devices):
    slots *= devices
    together = sizing.admitted_together(slots, devices)
    assert together % devices == 0
    assert devices <= together <= slots
    assert together == devices or together <= slots / 8


def test_half_of_the_free_memory_goes_to_the_cache():
    assert sizing.cache_tokens({"bytes_limit": 1000, "bytes_in_use": 200}, 4.0) == 100
    assert sizing.cache_tokens({"bytes_limit": 1000}, 4.0) == 125
    for unknown in (None, {}, {"bytes_in_use": 5}):
        assert sizing.cache_tokens(unknown, 4.0) == 32768


def test_less_is_read_only_of_long_stacked_caches():
    assert sizing.visible_lengths(2048, unstacked=False) == [512, 1024, 2048]
    assert sizing.visible_lengths(1008, unstacked=False) == [1008]
    assert sizing.visible_lengths(2048, unstacked=True) == [2048]
