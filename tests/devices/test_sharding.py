import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from judgelm_jax.devices import sharding
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.errors import InputError


def test_axes_of_size_one_stay_in_the_mesh():
    mesh = sharding.make_mesh(MeshConfig.parse("data:-1"))
    assert dict(mesh.shape) == {"data": 8, "fsdp": 1, "tensor": 1}


def test_the_table_maps_weights_and_activations():
    assert sharding.spec(("layer", "heads", "embed")) == P(None, "tensor", "fsdp")
    assert sharding.spec(("batch", "sequence", "width")) == P(("data", "fsdp"), None, None)


def test_a_mesh_axis_cannot_split_two_dimensions():
    with pytest.raises(ValueError, match="twice"):
        sharding.spec(("heads", "hidden"))


def test_a_size_that_does_not_divide_is_refused_by_name():
    mesh = sharding.make_mesh(MeshConfig.parse("fsdp:2,tensor:4"))
    with pytest.raises(InputError, match=r"'vocab'.*tensor = 4.*size 99"):
        sharding.sharding(mesh, ("vocab", "embed"), (99, 64))
    assert sharding.sharding(mesh, ("vocab", "embed"), (100, 64)).spec == P("tensor", "fsdp")


def test_an_activation_lies_where_the_table_says():
    mesh = sharding.make_mesh(MeshConfig.parse("data:2,fsdp:2,tensor:2"))
    x = jax.jit(lambda x: sharding.constrain(x * 2, mesh, ("batch", "sequence", "hidden")))(np.ones((4, 3, 6)))
    assert x.sharding.is_equivalent_to(jax.NamedSharding(mesh, P(("data", "fsdp"), None, "tensor")), x.ndim)
