"""An agent on the last 1.x line of the MCP SDK, as its documents show it; prints what it saw as JSON lines.

Run with the Python of ``.venv-mcp1``: ``mcp1_agent.py URL TOKEN``.
"""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def main(url: str, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        streamablehttp_client(url, headers=headers) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        hello = await session.initialize()
        show(hello=hello.serverInfo.name, revision=hello.protocolVersion)
        listed = await session.list_tools()
        show(tools=sorted(tool.name for tool in listed.tools))
        heard: list[float] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            heard.append(done)

        for name, arguments in json.loads(sys.stdin.read()):
            result = await session.call_tool(name, arguments, progress_callback=progress)
            text = result.content[0].text if result.content else ""
            show(tool=name, error=bool(result.isError), text=text, meta=result.meta, progress=list(heard))
            heard.clear()
        await session.send_ping()
        show(ping=True)


def show(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
