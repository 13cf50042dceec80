"""One training in two processes: the same as in one, and ended where they disagree."""

import json
import re
import signal

import pytest
from free_ports import free_port
from several_processes import run_in_turn
from train_command import arguments, ended, losses, start, steps_done, wait_for

from judgelm_jax.checkpoints import open_checkpoint


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


# So that a signal comes between two steps of many.
SLOW_STEPS = (
    "import time; from judgelm_jax.training import feeding; put = feeding.Feeding.put; "
    "feeding.Feeding.put = lambda *given: (time.sleep(0.25), put(*given))[1]"
)
COMPILES_FOR_EVER = (
    "import time; from judgelm_jax.training import fitting; "
    "fitting.compiled_step = lambda *given: (print('compiles', flush=True), time.sleep(300))"
)


def start_two(files, output, *more, before="pass"):
    own = arguments(files, output, f"--coordinator=127.0.0.1:{free_port()}", "--processes=2", *more)
    return [start([*own, f"--process={number}"], devices=2, before=before) for number in range(2)]


@pytest.fixture(scope="module")
def two(files, tmp_path_factory):
    """A run of two processes that nothing disturbs."""
    output = tmp_path_factory.mktemp("two") / "run"
    for process in start_two(files, output):
        code, _, err = ended(process)
        assert code == 0, err
    return output


def assert_equal_but_for_rounding(ours, theirs):
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for own, other in zip(ours, theirs, strict=True):
        if own["kind"] != "epoch":
            assert own["loss"] == pytest.approx(other["loss"], rel=2e-4)
            if own["kind"] == "evaluation":
                assert own["agreement"] == pytest.approx(other["agreement"], abs=1 / 8)
        else:
            assert own == other


@pytest.mark.slow
def test_two_processes_equal_one(two, whole):
    assert_equal_but_for_rounding(losses(two), losses(whole[0]))
    assert open_checkpoint(str(two / "model")).config.hidden_size == 32


@pytest.mark.slow
@pytest.mark.parametrize(("victim", "way", "again"), [(0, "SIGINT", 1), (1, "SIGTERM", 2)])
def test_a_signal_to_one_process_saves_all_and_the_run_ends_as_if_there_had_been_none(victim, way, again, files, two, tmp_path):
    output = tmp_path / "run"
    together = start_two(files, output, before=SLOW_STEPS)
    wait_for(lambda: steps_done(output) >= 5, together[0])
    together[victim].send_signal(getattr(signal, way))
    if way == "SIGTERM":
        together[victim].send_signal(signal.SIGTERM)  # a cluster repeats it
    saved = []
    for process in together:
        code, _, err = ended(process)
        assert code == {"SIGTERM": 143, "SIGINT": 130}[way], err
        said = [line for line in err.splitlines() if not line[0].isdigit() and not line.startswith("judgelm-train: stopping: ")]
        assert len(said) == 1, err
        saved.append(
            re.fullmatch(rf"{output}: stopped after step (\d+), which is saved; run again with --resume to go on", said[0])[1]
        )
    assert saved[0] == saved[1]
    step = int(saved[0])
    assert 5 <= step < max(line["step"] for line in losses(two))
    assert (output / "checkpoints" / saved[0]).is_dir()
    alone = [start(arguments(files, output, "--resume"), devices=4)] if again == 1 else []
    resumed = alone or start_two(files, output, "--resume")
    results = [ended(process) for process in resumed]
    assert [code for code, _, _ in results] == [0] * again, results
    assert f"{step} of them before" in results[0][1]
    if again == 1:
        assert_equal_but_for_rounding(losses(output), losses(two))
    else:
        assert losses(output) == losses(two)  # every bit of every loss


@pytest.mark.slow
def test_two_processes_try_a_training_and_trace_one(files, tmp_path):
    output, summary = tmp_path / "run", tmp_path / "summary.json"
    own = [*arguments(files, output), "--config.training.steps=4", "--config.evaluation.every=0"]
    tried, traced = [*own, "--dry_run", f"--json={summary}"], [*own, "--profile=2"]
    (first, said), (second, second_said) = run_in_turn("train", [tried, traced], 2)
    assert second == ["", ""]
    assert first[0].endswith("dry run    nothing was written\n")
    assert json.loads(summary.read_text())["steps"] == 4
    assert "trained    4 steps" in first[1]
    assert sorted(path.name for path in (output / "profile").iterdir()) == ["process-0", "process-1"]
    for own, err in enumerate((said, second_said)):
        place = output / "profile" / f"process-{own}"
        assert [line for line in err.splitlines() if not line[0].isdigit()] == [f"profile    2 steps, in {place}"]
        assert len(list(place.rglob("*.xplane.pb"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_sigterm_while_the_step_compiles_ends_all_at_once(victim, files, tmp_path):
    output = tmp_path / "run"
    together = start_two(files, output, before=COMPILES_FOR_EVER)
    for process in together:
        while process.stdout.readline() != "compiles\n":
            assert process.poll() is None
    together[victim].send_signal(signal.SIGTERM)
    for number, process in enumerate(together):
        code, _, err = ended(process)
        assert code == 143, err
        (said,) = [line for line in err.splitlines() if not line[0].isdigit()]
        told = "stopped by SIGTERM before the first step: nothing is lost, run the same command again"
        assert said.startswith("judgelm-train: " + ("" if number == victim else f"process {victim} on "))
        assert said.endswith(told)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_sigterm_while_one_is_waited_for_ends_all_at_once(victim, files, tmp_path):
    own = arguments(files, tmp_path / "run", f"--coordinator=127.0.0.1:{free_port()}", "--processes=3")
    quicker = "from judgelm_jax.processes import watching; watching._TELL_SECONDS = 0.2"
    together = [start([*own, f"--process={number}"], before=quicker) for number in range(2)]
    while "waiting for process 2 of 3" not in together[0].stderr.readline():
        assert together[0].poll() is None
    together[victim].send_signal(signal.SIGTERM)
    for number, process in enumerate(together):
        code, _, err = ended(process)
        assert code == 143, err
        (said,) = [line for line in err.splitlines() if "waiting for" not in line]
        assert said.startswith("judgelm-train: " + ("" if number == victim else f"process {victim} on "))
        assert said.endswith("stopped by SIGTERM before the first step: nothing is lost, run the same command again")
