"""Loss and gradient of every kind of family on eight devices against PyTorch, one document at a time."""

import jax
import numpy as np
import pytest
from family_models import make

from judgelm_jax.checkpoints import open_checkpoint
from judgelm_jax.checkpoints.tensor_names import tensor_table
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.devices.sharding import make_mesh
from judgelm_jax.model import parameters
from judgelm_jax.model.placement import Placement
from judgelm_jax.training.loss import total_loss
from judgelm_jax.training.step import batch_sharding

from .conftest import make_batch
from .test_loss import torch_loss


@pytest.mark.parametrize(
    "case",
    [
        "gemma3",
        *(
            pytest.param(case, marks=[pytest.mark.slow, pytest.mark.optimized])
            for case in ("qwen2, windows first", "qwen3", "gemma2")
        ),
    ],
)
def test_loss_and_gradient_equal_pytorch(case, tmp_path):
    theirs = make(case, tmp_path)
    checkpoint, mesh = open_checkpoint(str(tmp_path)), make_mesh(MeshConfig.parse("data:2,fsdp:2,tensor:2"))
    shardings = parameters.param_shardings(checkpoint.config, mesh)
    params = checkpoint.load(shardings, "float32")
    batch = make_batch(4, seed=3, documents=2)  # documents of up to 16 tokens, windows of 7
    placement = Placement(mesh, "blocked", "full")
    step = jax.value_and_grad(lambda p, batch: total_loss(p, checkpoint.config, batch, placement, True, 256))
    sharded = jax.device_put(batch, batch_sharding(mesh))
    loss, gradient = jax.jit(step, out_shardings=(None, shardings))(params, sharded)
    expected = torch_loss(theirs, batch)
    expected.backward()
    np.testing.assert_allclose(loss, float(expected.detach()), rtol=1e-5)
    tensors = dict(theirs.named_parameters())
    for name, spec in tensor_table(checkpoint.config).items():
        leaf = gradient
        for key in spec.path:
            leaf = leaf[key]
        own = np.asarray(leaf if spec.layer is None else leaf[spec.layer])
        wanted = tensors[name].grad.numpy()
        np.testing.assert_allclose(own, wanted, atol=1e-4 * max(1, np.abs(wanted).max()), err_msg=name)
        assert np.abs(wanted).max() > 0
