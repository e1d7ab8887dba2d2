"""With WHYGATE_NO_SKIPS=1 a skipped test has failed: where everything is installed, a skip is a promise nobody checked.

A developer without Jaeger or nginx still gets a green run that says what was left out. CI sets the variable.
An expected failure (xfail) is not a skip.
"""

import os
from collections.abc import Generator

import pytest

SWITCH = "WHYGATE_NO_SKIPS"


def _turn(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a failure of the report if it is a skip, keeping its reason."""
    if os.environ.get(SWITCH) != "1" or report.outcome != "skipped" or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{SWITCH}=1 allows no skip, and this was one. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _turn(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A whole module can skip itself, too."""
    report = yield
    _turn(report)
    return report
