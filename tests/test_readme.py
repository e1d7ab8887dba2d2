"""What the README shows is true: its policy loads and its tests pass, its links lead somewhere."""

import re
from pathlib import Path

from whygate.core.policy.cases import run
from whygate.core.policy.parse import load

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_policy_does_what_it_says() -> None:
    """Copied as it stands, it loads, and its own tests pass."""
    (policy,) = re.findall(r"<!-- policy: .*? -->\n```yaml\n(.*?)```", TEXT, re.DOTALL)
    results = run(load({"readme.yaml": policy}))
    assert len(results) == 3
    assert [result for result in results if not result.passed] == []


def test_links_lead_somewhere() -> None:
    """Every relative link of the README and of the docs names a file of the project."""
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "agents_examples" / "README.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
