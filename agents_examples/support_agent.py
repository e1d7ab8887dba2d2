"""A support agent on the MCP SDK and plain HTTP: looks into a complaint, refunds, and leaves a note in a repository.

It follows a plan instead of a model. Whatever the gateway refuses, it reads the reason and carries on, as a good agent
would; whygate's part in this file is three URLs and three headers.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import httpx2  # the MCP SDK's HTTP client
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

GATEWAY = os.environ.get("WHYGATE_URL", "http://127.0.0.1:8700")
TOKEN = os.environ["WHYGATE_TOKEN"]
WAIT_S = int(os.environ.get("DEMO_WAIT_S", "0"))
REPOSITORY = os.environ.get("DEMO_REPOSITORY", ".")

CORRELATION = {
    header: os.environ[variable]
    for header, variable in (("whygate-task", "WHYGATE_TASK"), ("traceparent", "TRACEPARENT"))
    if os.environ.get(variable)
}
HEADERS = {"authorization": f"Bearer {TOKEN}", **CORRELATION}


@asynccontextmanager
async def mcp_server(name: str) -> AsyncIterator[Client]:
    """An ordinary MCP client: only the URL is the gateway's."""
    async with (
        httpx2.AsyncClient(headers=HEADERS, timeout=30) as http,
        Client(streamable_http_client(f"{GATEWAY}/mcp/{name}", http_client=http)) as client,
    ):
        yield client


async def use(client: Client, tool: str, **arguments: Any) -> None:
    """Call an MCP tool and say what came of it."""
    result = await client.call_tool(tool, arguments)
    text = " ".join(getattr(part, "text", "") for part in result.content)
    report(tool, text, refused=bool(result.is_error))


async def fetch(billing: httpx.AsyncClient, method: str, path: str, **options: Any) -> None:
    """Call a plain HTTP tool and say what came of it."""
    answer = await billing.request(method, path, **options)
    body = answer.json()
    refused = answer.headers.get("content-type", "").startswith("application/problem+json")
    report(f"{method} {path}", body["detail"] if refused else str(body), refused=refused)


def report(what: str, text: str, *, refused: bool) -> None:
    first = " ".join(text.split())[:88]
    print(f"  {'refused' if refused else 'done   '}  {what:<24} {first}", flush=True)


async def main() -> None:
    async with AsyncExitStack() as stack:
        git = await stack.enter_async_context(mcp_server("git"))
        clock = await stack.enter_async_context(mcp_server("time"))
        billing = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"{GATEWAY}/http/billing", headers=HEADERS, timeout=30)
        )
        tools = [tool.name for tool in (await git.list_tools()).tools]
        print(f"  the gateway shows this agent {len(tools)} of the git server's tools: {', '.join(tools)}", flush=True)

        # Looking into it: reading is routine.
        await fetch(billing, "GET", "/invoices/1042")
        await use(clock, "get_current_time", timezone="Europe/Berlin")
        await use(git, "git_log", repo_path=REPOSITORY, max_count=3)

        # Making it right: a small refund is within the agent's own authority, a larger one is not.
        await fetch(billing, "POST", "/refunds", json={"invoice_id": "1042", "amount_cents": 4500})
        # For the larger one a person has to agree; this agent is willing to wait for a while.
        wait = {"prefer": f"wait={WAIT_S}"}
        large = {"invoice_id": "1043", "amount_cents": 250_000}
        await fetch(billing, "POST", "/refunds", json=large, headers=wait)
        await fetch(billing, "POST", "/refunds", json={"invoice_id": "1043", "amount_cents": 9_000_000})
        await fetch(billing, "POST", "/refunds", json={"invoice_id": "1043"})

        # Writing it down.
        await use(git, "git_create_branch", repo_path=REPOSITORY, branch_name="refund-1042")
        await use(git, "git_add", repo_path=REPOSITORY, files=["note.md"])
        await use(git, "git_commit", repo_path=REPOSITORY, message="Refunded 1042")

        # What it may not do, and what it was never given.
        await use(git, "git_reset", repo_path=REPOSITORY)
        await fetch(billing, "GET", "/customers/export")

        # It may ask for it, though: an elevation, for one call.
        if WAIT_S:
            desk = await stack.enter_async_context(mcp_server("whygate"))
            wanted = {"entitlement": "customer-export", "reason": "The claim is about a mix-up of two customers."}
            made = await desk.call_tool("request_elevation", {**wanted, "uses": 1})
            asked = (made.structured_content or {}).get("approval", "")
            report("request_elevation", getattr(made.content[0], "text", ""), refused=bool(made.is_error))
            for _ in range(WAIT_S):
                told = await desk.call_tool("approval_status", {"approval": asked})
                if (told.structured_content or {}).get("status") != "pending":
                    break
                await asyncio.sleep(0.5)
            await fetch(billing, "GET", "/customers/export")

        # A credential that has expired, as happens in long tasks.
        if stale := os.environ.get("DEMO_STALE_TOKEN"):
            await fetch(billing, "GET", "/invoices/1043", headers={"authorization": f"Bearer {stale}"})


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except (httpx.HTTPError, httpx2.HTTPError) as error:
        sys.exit(f"the gateway at {GATEWAY} can't be reached: {error}")
