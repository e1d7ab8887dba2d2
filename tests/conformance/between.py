"""A gateway put between the suite and a server, that permits everything and asks for no credential that the suite can't send."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.conformance.badge import badge
from tests.servers.gateway import Running, free_port, running

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


@asynccontextmanager
async def behind(tmp_path: Path, upstream: dict[str, Any]) -> AsyncIterator[tuple[str, Running]]:
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
        ) as gateway,
        badge(port, to_port=int(gateway.url.rpartition(":")[2]), credential=gateway.tokens.make()),
    ):
        yield f"http://127.0.0.1:{port}/mcp/conformance", gateway
