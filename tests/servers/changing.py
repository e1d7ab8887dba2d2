"""An MCP server whose definitions are what a file says at the moment: run as a script it speaks stdio, imported it is an app.

The file holds a JSON list of tools. Only the era of 2025-11-25 over stdio; over HTTP without sessions.
"""

import json
import sys
from pathlib import Path


def answer(message, tools):
    """The response to a message, ``None`` for what wants none."""
    method = message.get("method")
    if "id" not in message or method is None:
        return None
    if method == "initialize":
        result = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "changing", "version": "1"},
        }
    elif method == "tools/list":
        result = {"tools": json.loads(Path(tools).read_text(encoding="utf-8"))}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": "done"}], "isError": False}
    else:
        return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def app(tools):
    """The same over HTTP, as ASGI."""

    async def serve(scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        made = answer(json.loads(body), tools) if body else None
        status, data = (202, b"") if made is None else (200, json.dumps(made).encode())
        headers = [(b"content-type", b"application/json")] if data else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    return serve


def main():
    for line in sys.stdin:
        made = answer(json.loads(line), sys.argv[1])
        if made is not None:
            sys.stdout.write(json.dumps(made) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
