"""A gateway put between the suite and a server, that permits everything and asks for no credential that the suite can't send."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.conformance.badge import badge
from tests.servers.gateway import Running, free_port, running

from whygate import wiring
from whygate.core import definitions
from whygate.core.definitions import Unreadable
from whygate.core.pins import PinSet, pin
from whygate.core.schemas import Unusable
from whygate.flow.catalogue import Catalogue

RULES = """
policy: everything
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: everything
    tools: ["*", "resource:*/*", "prompt:*/*", "question:*/*"]
    permit: {}
    why: The suite may call whatever it likes.
"""


class FirstSeen(Catalogue):
    """Pins what passes when it passes first: for a server that counts requests, so that nobody can ask it beforehand."""

    def listed(self, server: str, given: Sequence[bytes], cause: str = "list") -> list[bool]:
        known = dict(self.pins.by_tool)
        for each in given:
            with contextlib.suppress(Unreadable, Unusable):
                made = pin(server, definitions.read(each), by="tests", at="")
                known.setdefault((server, made.name), made)
        self.put(PinSet({}, known.values()))
        return super().listed(server, given, cause)


@asynccontextmanager
async def unasked(tmp_path: Path, upstream: dict[str, Any]) -> AsyncIterator[tuple[str, Running]]:
    """As ``behind``, but the gateway asks the server nothing of its own."""
    with patch.object(wiring, "Catalogue", FirstSeen):
        async with behind(tmp_path, upstream, pins={}) as found:
            yield found


@asynccontextmanager
async def behind(
    tmp_path: Path, upstream: dict[str, Any], pins: dict[str, Any] | None = None
) -> AsyncIterator[tuple[str, Running]]:
    """A gateway before a server, with a credential put in for the suite, which can't send one."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "everything.yaml").write_text(RULES)
    port = free_port()
    async with (
        running(
            tmp_path,
            {"conformance": {"mcp": upstream}},
            policies=str(folder),
            public_url=f"http://127.0.0.1:{port}",
            pins=pins,
        ) as gateway,
        badge(port, to_port=int(gateway.url.rpartition(":")[2]), credential=gateway.tokens.make()),
    ):
        yield f"http://127.0.0.1:{port}/mcp/conformance", gateway
