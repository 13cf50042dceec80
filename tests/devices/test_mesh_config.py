import pytest

from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.errors import InputError


def test_mesh_sizes_follow_the_flag():
    assert MeshConfig.parse("data:-1").sizes(8) == (8, 1, 1)
    assert MeshConfig.parse("data:2,tensor:4").sizes(8) == (2, 1, 4)
    assert MeshConfig.parse("fsdp:-1,tensor:2").sizes(8) == (1, 4, 2)


@pytest.mark.parametrize("text", ["", "data", "data:x", "data:0", "data:-2", "rows:2", "data:2,data:4", "data:-1,fsdp:-1"])
def test_a_wrong_mesh_is_refused(text):
    with pytest.raises(InputError, match="--mesh"):
        MeshConfig.parse(text)


@pytest.mark.parametrize("text", ["data:3", "data:-1,tensor:3", "data:16"])
def test_a_mesh_that_does_not_fit_the_devices_is_refused(text):
    with pytest.raises(InputError, match="8 devices"):
        MeshConfig.parse(text).sizes(8)
