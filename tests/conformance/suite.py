"""The protocol's own conformance suite, run as a process; what it found, as a table."""

import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.servers import npm


class Leg(NamedTuple):
    """One run of the suite: which of its two versions, and for which revisions of the protocol."""

    name: str
    package: str
    options: tuple[str, ...]


ROOT = Path(__file__).parents[2]
LEGS = (
    Leg("0.1.16", "conformance-2025", ("--suite", "all")),
    Leg("0.2.0-alpha.12, 2025-11-25", "conformance-2026", ("--suite", "all", "--spec-version", "2025-11-25")),
    Leg("0.2.0-alpha.12, 2026-07-28", "conformance-2026", ("--suite", "all", "--spec-version", "2026-07-28")),
)
CLIENT_SCENARIOS = (
    ("2025-11-25", "initialize"),
    ("2025-11-25", "tools_call"),
    ("2025-11-25", "elicitation-sep1034-client-defaults"),
    ("2025-11-25", "sse-retry"),
    ("2026-07-28", "tools_call"),
    ("2026-07-28", "request-metadata"),
    ("2026-07-28", "http-standard-headers"),
    ("2026-07-28", "http-custom-headers"),
    ("2026-07-28", "http-invalid-tool-headers"),
    ("2026-07-28", "json-schema-2020-12-preservation"),
    ("2026-07-28", "json-schema-ref-no-deref"),
    ("2026-07-28", "sep-2322-client-request-state"),
)
"""All of the client's that are neither about authorization (there the gateway itself is the resource server) nor an extension's."""
_STAMP = re.compile(r"^(?:server-|client-)?(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z$")


@dataclass(frozen=True, slots=True)
class Table:
    """Each scenario's checks: id, name, and how it ended. Sorted, because the suite also notes each message that it sees,
    and of two that are on their way at once now one and now the other comes first.
    """

    scenarios: dict[str, list[tuple[str, str, str]]]

    def count(self) -> Counter[str]:
        return Counter(status for checks in self.scenarios.values() for _, _, status in checks)

    def differing(self, other: "Table") -> dict[str, list[str]]:
        """What is not the same in ``other``, by scenario; empty where everything is."""
        found = {}
        for scenario in sorted(self.scenarios.keys() | other.scenarios.keys()):
            mine, its = self.scenarios.get(scenario), other.scenarios.get(scenario)
            if mine != its:
                found[scenario] = [
                    f"{one} / {two}" for one, two in zip(mine or ["-"], its or ["-"], strict=False) if one != two
                ]
        return found


def read(folder: Path) -> Table:
    """What the suite wrote into ``folder``."""
    scenarios = {}
    for path in sorted(folder.glob("*/checks.json")):
        match = _STAMP.match(path.parent.name)
        assert match is not None, f"the suite names its results in a new way: {path.parent.name}"
        checks = json.loads(path.read_text(encoding="utf-8"))
        scenarios[match["scenario"]] = sorted((each["id"], each["name"], each["status"]) for each in checks)
    return Table(scenarios)


async def run(leg: Leg, url: str, folder: Path) -> Table:
    """Run a leg against the server at ``url``."""
    return await _run(leg.package, folder, "server", "--url", url, *leg.options)


async def run_client(scenario: str, revision: str, client: str, folder: Path) -> Table:
    """Let the suite play the server for ``client``, a command that gets its address as last argument."""
    options = ("--spec-version", revision, "--scenario", scenario, "--command", client)
    return await _run("conformance-2026", folder, "client", *options)


async def _run(package: str, folder: Path, *options: str) -> Table:
    """The suite's own exit code is not looked at: it says no more than the table."""
    line = npm.command(package, *options, "-o", str(folder))
    assert line is not None, npm.INSTALL
    process = await asyncio.create_subprocess_exec(
        *line,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    table = read(folder)
    assert table.scenarios, output.decode()
    return table
