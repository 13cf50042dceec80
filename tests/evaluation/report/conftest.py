import pytest
from evaluation_report import write_judgments

from judgelm_jax.evaluation.joining import join


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    return write_judgments(tmp_path_factory.mktemp("report"), 12)


@pytest.fixture(scope="session")
def joined(files):
    return join(files[1], files[0], None, "tolerant")
