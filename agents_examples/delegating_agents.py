"""Two agents in one task: the first hands a question to the second, and both stay visible in every record.

The second agent's token names the chain (RFC 8693 section 4.1): ``sub`` is the person for whom all this happens, ``act``
the agent that calls, ``act.act`` the one that delegated to it. In production a token service issues such a token in
exchange for the first agent's; here the environment brings both.
"""

import asyncio
import os
import sys
from typing import Any

import httpx2  # the MCP SDK's HTTP client
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

GATEWAY = os.environ.get("WHYGATE_URL", "http://127.0.0.1:8700")
TASK = os.environ["WHYGATE_TASK"]


async def ask(name: str, token: str, server: str, tool: str, arguments: dict[str, Any]) -> None:
    """One agent's use of one tool, within the task that both share."""
    headers = {"authorization": f"Bearer {token}", "whygate-task": TASK}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(f"{GATEWAY}/mcp/{server}", http_client=http)) as client,
    ):
        result = await client.call_tool(tool, arguments)
        text = " ".join(" ".join(getattr(part, "text", "") for part in result.content).split())
        print(f"{name}: {tool} {'refused' if result.is_error else 'done'}: {text[:100]}", flush=True)


async def main() -> None:
    first, second = os.environ["WHYGATE_TOKEN"], os.environ["DELEGATE_TOKEN"]
    now = {"timezone": "Europe/Berlin"}
    await ask("support agent", first, "time", "get_current_time", now)
    await ask("its delegate", second, "time", "get_current_time", now)
    # The delegate may know the time; converting it was not part of what it was asked for.
    other = {"source_timezone": "Europe/Berlin", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    await ask("its delegate", second, "time", "convert_time", other)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except httpx2.HTTPError as error:
        sys.exit(f"the gateway at {GATEWAY} can't be reached: {error}")
