"""Layers of like kinds together: every layer once, in order, in a program of few layers."""

from hypothesis import given
from hypothesis import strategies as st

from judgelm_jax.model.config import LayerKind, ModelConfig
from judgelm_jax.model.layer_pattern import kinds_of, shortest_pattern, stretches

FULL, NEAR, LOCAL = LayerKind(), LayerKind(window=8), LayerKind(window=8, rope_base=1e4)


@given(st.lists(st.sampled_from([FULL, NEAR, LOCAL]), max_size=14))
def test_stretches_hold_every_layer_once_and_in_order(kinds):
    found = stretches(kinds)
    layers = [kind for stretch in found for kind in stretch.kinds * stretch.times]
    assert layers == kinds
    starts = [stretch.start for stretch in found]
    assert starts == [sum(len(s.kinds) * s.times for s in found[:n]) for n in range(len(found))]
    runs = sum(kind != before for kind, before in zip(kinds, [None, *kinds], strict=False))
    assert sum(len(stretch.kinds) for stretch in found) <= runs
    if kinds:
        pattern = shortest_pattern(kinds)
        assert [pattern[n % len(pattern)] for n in range(len(kinds))] == kinds


def test_published_patterns_become_programs_of_few_layers():
    def sizes(kinds):
        return [(stretch.times, len(stretch.kinds)) for stretch in stretches(kinds)]

    assert sizes([FULL] * 32) == [(32, 1)]  # LLaMA, Mistral
    assert sizes([NEAR, FULL] * 13) == [(13, 2)]  # Gemma 2 2b
    assert sizes([FULL] * 21 + [NEAR] * 7) == [(21, 1), (7, 1)]  # Qwen2 with windows
    assert sizes(([LOCAL] * 5 + [FULL]) * 4 + [LOCAL] * 2) == [(4, 6), (1, 2)]  # Gemma 3 1b


def test_a_window_no_smaller_than_what_a_token_can_see_is_none():
    config = ModelConfig(32, 16, 24, 4, 2, 1, 8, 64, 1e-5, 1e4, None, False, 1, (2,), pattern=(NEAR, FULL))
    assert kinds_of(config, 9) == (NEAR, FULL, NEAR, FULL)
    assert kinds_of(config, 8) == (FULL,) * 4
    assert config.limits().window == 8
