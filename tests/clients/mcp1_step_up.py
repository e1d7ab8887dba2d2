"""An agent on the last 1.x line of the Python SDK that can be asked: ``mcp1_step_up.py URL TOKEN TOOL ARGUMENTS ACTION``.

Run with the Python of ``.venv-mcp1``. Prints what it was asked, and the result, as JSON lines.
"""

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client


def show(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


async def main(url: str, token: str, tool: str, arguments: str, action: str) -> None:
    async def asked(_: Any, params: Any) -> types.ElicitResult:
        show(asked=getattr(params, "mode", "form"), url=getattr(params, "url", ""))
        return types.ElicitResult(action=action)

    more = {} if action == "none" else {"elicitation_callback": asked}
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        streamablehttp_client(url, headers=headers) as (read, write, _),
        ClientSession(read, write, **more) as session,
    ):
        await session.initialize()
        result = await session.call_tool(tool, json.loads(arguments))
        text = result.content[0].text if result.content else ""
        show(error=bool(result.isError), text=text, meta=result.meta)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
