import dataclasses

import jax.numpy as jnp
import pytest

from judgelm_jax.model.config import LayerKind
from judgelm_jax.training.throughput import step_flops, twice_seen

from .conftest import MODEL


@pytest.mark.parametrize(("adapters_only", "passes"), [(False, 3), (True, 2)])
def test_flops_are_those_counted_by_hand(adapters_only, passes):
    """Two documents of 5 and 3 tokens with 4 targets: every product of the model, one by one, multiply and add."""
    layer = 0
    for rows, columns in ((32, 32), (16, 32), (16, 32), (32, 32), (48, 32), (48, 32), (32, 48)):  # q, k, v, o, gate, up, down
        layer += 2 * rows * columns
    dense = MODEL.num_layers * layer * 8 + 2 * 64 * 32 * 4
    attention = 0
    for length in (5, 3):
        attention += MODEL.num_layers * 2 * 2 * 4 * 8 * length**2 / 2  # scores and mixing, 4 heads of 8, half is seen
    expected = passes * dense + 3 * attention
    assert step_flops(MODEL, tokens=8, squares=25 + 9, targets=4, adapters_only=adapters_only) == pytest.approx(expected)


def test_what_a_window_hides_is_not_counted():
    """Three layers, two of them with a window of 3: one document of 5 tokens, counted token by token."""
    config = dataclasses.replace(MODEL, num_layers=3, pattern=(LayerKind(window=3), LayerKind(window=3), LayerKind()))
    near, all_of_them = [1, 2, 3, 3, 3], [1, 2, 3, 4, 5]
    squares = float(twice_seen(config, jnp.arange(5)).sum())
    assert squares == pytest.approx((2 * sum(2 * seen - 1 for seen in near) + sum(2 * seen - 1 for seen in all_of_them)) / 3)
    assert float(twice_seen(MODEL, jnp.arange(5)).sum()) == 25
    with_windows, without = (step_flops(config, 5, counted, targets=1, adapters_only=False) for counted in (squares, 25))
    assert without - with_windows == pytest.approx(3 * 2 * 2 * 4 * 8 * 2 * (sum(all_of_them) - sum(near)))
