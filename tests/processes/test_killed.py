"""Processes of a run that are killed at any moment."""

import pytest
from kill_processes import rounds


@pytest.mark.slow
@pytest.mark.parametrize("command", ["judge", "train"])
def test_a_kill_ends_all_and_the_run_goes_on_to_the_same_result(command):
    rounds(command, 2, processes=(2,), devices=1)
