"""The example of the package's own docstring, on a judge that lies where the quickstart leaves one."""

import doctest
from pathlib import Path

import pytest

import judgelm_jax


def test_the_first_verdict_in_under_ten_lines(
    laboratory_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs/quickstart").mkdir(parents=True)
    (tmp_path / "runs/quickstart/judge").symlink_to(laboratory_checkpoint)
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(judgelm_jax)
    assert (found.failed, found.attempted) == (0, 4)
    assert judgelm_jax.__doc__.count(">>>") < 10
