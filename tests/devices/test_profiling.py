"""How many steps are traced, and that a trace which is begun is ended."""

import jax
import jax.numpy as jnp
import pytest

from judgelm_jax.devices.profiling import Profile


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (0, "--profile: nothing to trace, the run has 0 steps and the first 2 warm up"),
        (1, "--profile: nothing to trace, the run has 1 steps and the first 2 warm up"),
        (2, "--profile: nothing to trace, the run has 2 steps and the first 2 warm up"),
        (3, "profile    1 steps, in "),
        (5, "profile    3 steps, in "),
        (9, "profile    3 steps, in "),
    ],
)
def test_three_steps_are_asked_for_and_a_run_makes_some(made, said, tmp_path, monkeypatch, capsys):
    done, calls = 0, []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(("start", done)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append(("stop", done)))
    profile = Profile(tmp_path, 3)
    for done in range(1, made + 1):  # noqa: B007
        profile.stepped(jnp.zeros(()))
    profile.close()
    assert capsys.readouterr().err.strip().startswith(said)
    begun = [("start", 2)] if made >= 2 else []
    assert calls == [*begun, *(("stop", min(made, 5)) for _ in begun)]
