"""One training in two processes: the same as in one, and ended where they disagree."""

import socket

import pytest
from train_command import arguments, ended, losses, start

from judgelm_jax.checkpoints import open_checkpoint


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.slow
def test_processes_that_disagree_end_with_the_difference(files, tmp_path):
    output = tmp_path / "run"
    port, rates = free_port(), ("1e-3", "2e-3")
    together = [
        start(
            arguments(
                files,
                output,
                f"--coordinator=127.0.0.1:{port}",
                "--processes=2",
                f"--process={number}",
                f"--config.training.learning_rate={rate}",
            )
        )
        for number, rate in enumerate(rates)
    ]
    for process in together:
        code, _, err = ended(process)
        assert code == 2, err
        lines = [line for line in err.splitlines() if "learning_rate" in line]
        assert len(lines) == 1, err
        assert "process 1" in lines[0]
        assert "Traceback" not in err
    assert not (output / "metrics.jsonl").exists()


@pytest.mark.slow
def test_two_processes_equal_one(files, whole, tmp_path):
    port = free_port()
    output = tmp_path / "run"
    together = [
        start(
            arguments(files, output, f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process={number}"),
            devices=2,
        )
        for number in range(2)
    ]
    for process in together:
        code, _, err = ended(process)
        assert code == 0, err
    ours, theirs = losses(output), losses(whole[0])
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for own, other in zip(ours, theirs, strict=True):
        if own["kind"] != "epoch":
            assert own["loss"] == pytest.approx(other["loss"], rel=2e-4)
            if own["kind"] == "evaluation":
                assert own["agreement"] == pytest.approx(other["agreement"], abs=1 / 8)
        else:
            assert own == other
    assert open_checkpoint(str(output / "model")).config.hidden_size == 32
