import pytest

from judgelm_jax.training.throughput import step_flops

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
