"""A bare MCP server over stdio, in a few lines of standard library: it does what a call's arguments tell it.

Run as a script. Every request is also noted on stderr. Answers of tools tell its process id.
"""

import json
import os
import subprocess
import sys


def _say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0"} | message) + "\n")
    sys.stdout.flush()


def _call(message):
    params = message["params"]
    args, meta = params.get("arguments", {}), params.get("_meta", {})
    for number in range(args.get("progress", 0)):
        _say(
            {"method": "notifications/progress", "params": {"progressToken": meta["progressToken"], "progress": number}}
        )
    if args.get("log"):
        _say({"method": "notifications/message", "params": {"level": "info", "data": args["log"]}})
    if args.get("ask"):
        _say({"id": "q1", "method": "elicitation/create", "params": {"message": args["ask"]}})
        reply = json.loads(sys.stdin.readline())
        _say({"id": message["id"], "result": {"content": [{"type": "text", "text": json.dumps(reply)}]}})
        return
    if args.get("leave"):  # somebody behind who keeps the pipes open
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    if args.get("die"):
        os._exit(3)
    if args.get("noise"):
        sys.stdout.write("this is no JSON\n[]\n\n")
    if args.get("hang"):
        cancelled = json.loads(sys.stdin.readline())
        _say({"method": "notifications/message", "params": {"level": "info", "data": cancelled}})
        return
    if args.get("error"):
        _say({"id": message["id"], "error": {"code": args["error"], "message": "as told"}})
        return
    told = {"pid": os.getpid(), "env": dict(os.environ), "id": message["id"], "params": params}
    _say({"id": message["id"], "result": {"content": [{"type": "text", "text": json.dumps(told)}], "isError": False}})


def main():
    for line in sys.stdin:
        message = json.loads(line)
        method = message.get("method")
        if method == "tools/call":
            _call(message)
        elif method == "initialize":
            capabilities = {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "serverInfo": {"name": "s", "version": "1"},
            }
            _say({"id": message["id"], "result": capabilities})
        elif method == "subscriptions/listen":
            meta = {"io.modelcontextprotocol/subscriptionId": message["id"]}
            _say({"method": "notifications/subscriptions/acknowledged", "params": {"_meta": meta}})
            _say({"method": "notifications/tools/list_changed", "params": {"_meta": meta}})
        elif method == "tools/list":
            schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
            _say({"id": message["id"], "result": {"tools": [{"name": "echo", "inputSchema": schema}]}})
        elif method == "logging/setLevel":
            _say({"method": "notifications/tools/list_changed"})
            _say({"id": message["id"], "result": {}})
        elif "id" in message and method:
            _say({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})


if __name__ == "__main__":
    main()
