import numpy as np
import pytest
import torch
import transformers

from judgelm_jax.training.optimizer import schedule
from judgelm_jax.training_config import RecipeConfig


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.03), (2344, 0.03), (7, 0.5), (10, 0.0), (1, 0.03)])
def test_the_schedule_is_that_of_the_published_training(steps, warmup):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-5)
    theirs = transformers.get_cosine_schedule_with_warmup(
        optimizer, transformers.TrainingArguments(warmup_steps=warmup).get_warmup_steps(steps) if warmup else 0, steps
    )
    expected = []
    for _ in range(steps):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    ours = schedule(RecipeConfig(warmup=warmup), steps)
    np.testing.assert_allclose([ours(step) for step in range(steps)], expected, rtol=2e-5, atol=1e-12)
