import itertools

from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.judging import sizing
from judgelm_jax.judging.batching import bucket_lengths


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
    fits = max(1, min(256, int(tokens // context))) * devices
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


@given(room=st.none() | st.floats(-1e9, 1e12), per_token=st.floats(1, 1e7), most=st.sampled_from([8192, 16384]))
def test_tokens_of_a_batch_are_halved_until_they_should_fit(room, per_token, most):
    counts = sizing.token_counts(most, room, per_token)
    assert counts
    assert all(one == 2 * two for one, two in itertools.pairwise(counts))
    if room is None:
        assert counts == [most]
        return
    assert counts[-1] == 256
    assert counts[0] * per_token <= room or counts == [256]
    assert counts[0] == most or 2 * counts[0] * per_token > room


@given(slots=st.integers(1, 300), devices=st.sampled_from([1, 2, 8]))
def test_fewer_slots_are_tried_down_to_one_a_device(slots, devices):
    counts = sizing.fewer(slots * devices, devices)
    assert counts[0] == slots * devices
    assert counts[-1] == devices
    assert all(two < one and two % devices == 0 for one, two in itertools.pairwise(counts))


def test_the_cache_gets_what_a_prefill_leaves():
    assert sizing.cache_tokens(1000.0, 4.0, 200.0) == 200
    assert sizing.cache_tokens(100.0, 4.0, 200.0) == 0
    assert sizing.cache_tokens(None, 4.0, 200.0) == 32768


@given(most=st.integers(16, 5000))
def test_lengths_for_kernels_with_tiles_are_whole_and_large_tiles(most):
    buckets = sizing.length_buckets(most, "splash")
    assert buckets == sorted(set(buckets))
    assert buckets[-1] == most
    for length in buckets[:-1]:
        assert length % (128 if length <= 1024 else 256) == 0
        assert max(tile for tile in range(128, 1025, 128) if length % tile == 0) >= min(length, 256)
    assert sizing.length_buckets(most, "blocked") == bucket_lengths(most, 2)
    assert sizing.length_buckets(most, "cudnn") == bucket_lengths(most, 8)


def test_devices_that_would_hold_a_model():
    assert sizing.devices_that_hold(10.0, 1, 4.0, 32) == 4
    assert sizing.devices_that_hold(10.0, 2, 4.0, 32) == 8  # 20 in all, and 5 on four
    assert sizing.devices_that_hold(10.0, 1, 4.0, 2) is None
    assert sizing.devices_that_hold(10.0, 1, 0.0, 8) is None
