"""The demo, as a new user runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
CALL = re.compile(r"[├└]──\s+(?:\+\S+s\s+)?([+?x!^] \w+)\s+(.*?)  (\w+\.\w+)")


def _calls(text: str) -> list[tuple[str, str, str]]:
    # How often the agent asks how its question stands is a matter of milliseconds.
    return [match.groups() for match in CALL.finditer(text) if "approval_status" not in match[2]]  # type: ignore[misc]  # three groups


@pytest.mark.timeout(120)
def test_the_demo_tells_the_story_that_the_readme_shows() -> None:
    """``whygate demo`` runs through, and its tree is the README's: outcomes, tools and reason codes, in order."""
    environment = {**os.environ, "COLUMNS": "120"}  # no line is broken in two
    command = [sys.executable, "-m", "whygate", "demo"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (shown,) = re.findall(r"<!-- demo: .*? -->\n```\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(_calls(shown)) == 22
    assert _calls(ran.stdout) == _calls(shown)
    assert "BLOCKED POST billing/refund — args.limit_exceeded" in ran.stdout
    assert "agent.token_expired" in ran.stdout
    assert "scripted approver" in ran.stdout
    assert "/console/enrol?token=" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
