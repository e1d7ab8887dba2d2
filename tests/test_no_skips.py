"""The rule "no skips in CI" is one that can fail."""

import pytest

SKIPPING = """
import pytest

def test_skips():
    pytest.skip("nothing installed")

@pytest.fixture(scope="session")
def server():
    pytest.skip("no server")

def test_its_fixture_skips(server):
    pass

@pytest.mark.skip(reason="by mark")
def test_marked():
    pass

@pytest.mark.xfail(strict=True)
def test_expected_to_fail():
    assert False
"""


def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, switch: str | None, source: str
) -> pytest.RunResult:
    pytester.makepyfile(source)
    if switch is None:
        monkeypatch.delenv("WHYGATE_NO_SKIPS", raising=False)
    else:
        monkeypatch.setenv("WHYGATE_NO_SKIPS", switch)
    return pytester.runpytest_inprocess("-p", "tests.no_skips", "-p", "no:cacheprovider", "-p", "no:asyncio")


def test_a_skip_stays_a_skip_for_a_developer(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable a missing server costs nobody a green run."""
    run(pytester, monkeypatch, None, SKIPPING).assert_outcomes(skipped=3, xfailed=1)


def test_a_skip_fails_in_ci(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable each way to skip a test fails the run and keeps its reason; an expected failure stays one."""
    result = run(pytester, monkeypatch, "1", SKIPPING)
    outcomes = result.parseoutcomes()
    assert outcomes.get("skipped", 0) == 0
    assert outcomes["xfailed"] == 1
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 3
    result.stdout.fnmatch_lines_random(["*allows no skip*nothing installed*", "*allows no skip*no server*"])


def test_a_module_that_skips_itself_fails_in_ci(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole module cannot slip out, either."""
    result = run(pytester, monkeypatch, "1", 'import pytest\npytest.skip("not here", allow_module_level=True)\n')
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*allows no skip*not here*"])
