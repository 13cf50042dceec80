"""A plugin of pytest that says where a run's time goes: seconds of CPU, which other work on the machine does not change.

They are those of the tests' own threads and of the processes that ended meanwhile, with fixtures, summed over workers:
`PYTHONPATH=tests python -m pytest -n 2 --dist=loadfile -p cpu_seconds`.
"""

import resource
import time
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest
import warm_processes

_SHOWN = 30
_SINCE = pytest.StashKey[float]()


def _now() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime + warm_processes.seconds()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Each report, one of setup, call and teardown, tells what came since the one before."""
    report = yield
    now = _now()
    report.cpu_seconds, item.config.stash[_SINCE] = now - item.config.stash[_SINCE], now
    return report


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[_SINCE] = _now()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    tests: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            tests[getattr(report, "nodeid", "")] += getattr(report, "cpu_seconds", 0.0)
    files: Counter[str] = Counter()
    for name, seconds in tests.items():
        files[name.partition("::")[0]] += seconds
    for title, counted in (("files", files), ("tests", tests)):
        terminalreporter.section(f"CPU seconds of {title}: {sum(tests.values()):.0f} in all")
        for name, seconds in counted.most_common(_SHOWN):
            terminalreporter.line(f"{seconds:8.1f} {name}")
