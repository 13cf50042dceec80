"""What all tests share: eight fake CPU devices, the compilation cache, the shared folder, a small checkpoint."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from processes import OPTIMIZE_LESS, SIMPLE, xla_flags

# Before JAX is imported anywhere.
os.environ["JAX_PLATFORMS"] = "cpu"
if os.environ.get("JUDGELM_SHARED"):
    os.environ["JUDGELM_SHARED"] = str(Path(os.environ["JUDGELM_SHARED"]).resolve())  # tests change folders
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads would wait for each other by computing, in every worker
# Eight devices share two threads: a scheduler that reorders their collectives makes them wait for each other for ever.
os.environ["XLA_FLAGS"] = xla_flags(
    "--xla_force_host_platform_device_count=8", "--xla_cpu_enable_concurrency_optimized_scheduler=false"
)

import jax
import pytest
import warm_processes
from hypothesis import settings

from judgelm_jax import laboratory
from judgelm_jax.devices.runtime import enable_compilation_cache

if TYPE_CHECKING:
    from object_store import ObjectStore

enable_compilation_cache()
# A first example may wait for a compilation, and the machine may be shared: the time of one example says nothing.
settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")

_AS_USERS = os.environ.get(OPTIMIZE_LESS) == "0"

# Those of the slowest tests that runs have shown; `launch/test.sh` deals the files in this order.
_LONGEST_FIRST = (
    "test_invariance.py",
    "test_readme.py",
    "test_slurm.py",
    "test_train_processes.py",
    "test_killed.py",
    "test_judge_killed.py",
    "test_across_hosts.py",
    "test_quickstart.py",
    "test_plan.py",
    "test_train.py",
    "test_step.py",
    "test_precision.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """XLA reads its flags once, so a run that may hold tests marked `optimized` does without these."""
    if config.option.markexpr == "not slow" and not _AS_USERS:
        os.environ["XLA_FLAGS"] = xla_flags(*SIMPLE)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compiling is a third of the time: programs of tests, and of their processes, are hardly optimized.

    Those of tests marked `optimized` are compiled as users compile them; with JAX_DISABLE_MOST_OPTIMIZATIONS=0 all are.
    """
    less = "1" if item.get_closest_marker("optimized") is None and not _AS_USERS else "0"
    if os.environ.get(OPTIMIZE_LESS, "0") != less:
        os.environ[OPTIMIZE_LESS] = less
        jax.config.update("jax_disable_most_optimizations", less == "1")
        jax.clear_caches()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long are dealt to the workers first, so that none of them waits at the end for the other."""
    places = {name: place for place, name in enumerate(_LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """Looking for garbage among all that is imported, at JAX's many small objects, is a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_sessionfinish() -> None:
    warm_processes.close()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with golden files and real data; tests that need it are skipped where it is absent."""
    folder = os.environ.get("JUDGELM_SHARED")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs the folder of golden files and real data: set JUDGELM_SHARED")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def laboratory_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained small judge in Hugging Face form."""
    folder = tmp_path_factory.mktemp("laboratory") / "judge-hf"
    laboratory.write_checkpoint(folder, seed=0)
    return folder


@pytest.fixture(scope="session")
def one_device() -> jax.sharding.Mesh:
    """A mesh of one of the fake devices."""
    from judgelm_jax.devices.mesh_config import MeshConfig
    from judgelm_jax.devices.sharding import make_mesh

    return make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="session")
def _s3_server() -> "Iterator[ObjectStore]":
    from object_store import ObjectStore

    store = ObjectStore()
    yield store
    store.close()


@pytest.fixture
def object_store(_s3_server: "ObjectStore", monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """An empty bucket of an S3 server, which the environment names; local copies go to a folder of their own."""
    for name, value in _s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    _s3_server.empty()
    yield _s3_server
    _s3_server.faults.pending, _s3_server.faults.every = [], None
