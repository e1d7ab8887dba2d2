"""Every name that a span or its resource carries, once, with what it says. ``docs/telemetry.md`` is made from this.

Rules of this file:

1. The conventions' names first, ``whygate.*`` for what they have no word for. GenAI's and MCP's are still in
   development: when one of them moves, it moves here.
2. A name that was published is never given another meaning.
3. What agents, approvers or tools wrote is no attribute: not arguments, results, the name that was asked for where no
   such tool exists, or correlation that a client claims.
"""

from typing import Final, NamedTuple

SCOPE: Final = "whygate"
"""Name of the instrumentation scope. Without a version: a span sent again after an upgrade has to be the same span."""

SERVICE_NAME: Final = "service.name"
SERVICE_INSTANCE: Final = "service.instance.id"
HOST_NAME: Final = "host.name"
IP: Final = "ip"

OPERATION: Final = "gen_ai.operation.name"
TOOL_NAME: Final = "gen_ai.tool.name"
PROMPT_NAME: Final = "gen_ai.prompt.name"
AGENT_ID: Final = "gen_ai.agent.id"
WORKFLOW_NAME: Final = "gen_ai.workflow.name"
MCP_METHOD: Final = "mcp.method.name"
MCP_VERSION: Final = "mcp.protocol.version"
RESOURCE_URI: Final = "mcp.resource.uri"
RPC_REQUEST_ID: Final = "jsonrpc.request.id"
RPC_STATUS: Final = "rpc.response.status_code"
HTTP_METHOD: Final = "http.request.method"
HTTP_STATUS: Final = "http.response.status_code"
CLIENT_ADDRESS: Final = "client.address"
ERROR_TYPE: Final = "error.type"

OUTCOME: Final = "whygate.outcome"
REASON: Final = "whygate.reason.code"
DECISION: Final = "whygate.decision.id"
EFFECT: Final = "whygate.effect"
PRIVILEGED: Final = "whygate.privileged"
MODE: Final = "whygate.mode"
POLICY: Final = "whygate.policy.id"
POLICY_VERSION: Final = "whygate.policy.version"
POLICY_DIGEST: Final = "whygate.policy.digest"
POLICY_SET: Final = "whygate.policy.set"
RULE: Final = "whygate.rule.id"
IDENTITY: Final = "whygate.identity.type"
SUBJECT: Final = "whygate.subject.id"
DEPTH: Final = "whygate.delegation.depth"
TASK: Final = "whygate.task.id"
APPROVAL: Final = "whygate.approval.id"
APPROVAL_EVENT: Final = "whygate.approval.event"
GRANT: Final = "whygate.grant.id"
EXCEPTION: Final = "whygate.exception.id"
EXCEPTION_KIND: Final = "whygate.exception.kind"
TASK_DERIVED: Final = "whygate.task.derived"
WORKFLOW: Final = "whygate.workflow"
INCIDENT: Final = "whygate.incident"
SERVER: Final = "whygate.server"
TOOL_CLASS: Final = "whygate.tool.class"
TOOL_TIER: Final = "whygate.tool.tier"
COMPLETION: Final = "whygate.completion.code"
HIDDEN: Final = "whygate.hidden"
LEFT_OUT: Final = "whygate.left_out"
LINKED: Final = "whygate.linked.trace_id"
REPEATS: Final = "whygate.repeats"
ENFORCEMENT: Final = "whygate.enforcement"

UNKNOWN_TOOL: Final = "_unknown"
"""Stands for whatever is in no catalogue: names that callers make up would ruin a list of operations."""
OTHER: Final = "_OTHER"
"""What the conventions put for a value outside the known ones."""

HTTP_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
METHODS: Final = HTTP_METHODS | frozenset(
    (
        *("initialize", "ping", "server/discover", "logging/setLevel", "completion/complete"),
        *("tools/call", "tools/list", "prompts/get", "prompts/list"),
        *("resources/list", "resources/read", "resources/subscribe", "resources/templates/list"),
        *("resources/unsubscribe", "subscriptions/listen", "roots/list"),
        *("sampling/createMessage", "elicitation/create"),
        *("tasks/open", "tasks/get", "tasks/list", "tasks/result", "tasks/cancel", "tasks/update"),
        *("policies/read", "policies/reload"),
        *("notifications/cancelled", "notifications/initialized", "notifications/progress"),
        *("notifications/roots/list_changed", "notifications/tasks/status", "response"),
    )
)
"""Methods that may stand in a span's name; a caller is free to send any other."""


class Row(NamedTuple):
    """One line of the reference."""

    name: str
    spans: str
    meaning: str


RESOURCE: Final = (
    Row(SERVICE_NAME, "resource", "`telemetry.service_name` of the configuration; one for all gateways"),
    Row(SERVICE_INSTANCE, "resource", "the ledger's writer, as its records name it"),
    Row(HOST_NAME, "resource", "the gateway's host, where its start record tells it"),
    Row(IP, "resource", "the gateway's address, where its start record tells it; lets Jaeger compare clocks"),
)

ATTRIBUTES: Final = (
    Row(OPERATION, "root, SERVER, CLIENT", "`invoke_workflow` on the root, `execute_tool` where a tool was called"),
    Row(
        TOOL_NAME,
        "SERVER, CLIENT",
        "`server/name` of a catalogued tool, else `_unknown`; of `tasks/*` the tool that the task is a call of",
    ),
    Row(PROMPT_NAME, "SERVER, CLIENT", "`server/name` of a prompt that its server listed, or that was permitted"),
    Row(RESOURCE_URI, "SERVER, CLIENT", "the same of a resource: its URI without user, query and fragment"),
    Row(AGENT_ID, "SERVER", "the verified id of an agent"),
    Row(WORKFLOW_NAME, "root", "the task's workflow, `task` where it has none"),
    Row(
        MCP_METHOD,
        "SERVER, CLIENT",
        "the MCP method; of a server's question (`elicitation/create` …) that, and `response` of the client's answer",
    ),
    Row(MCP_VERSION, "SERVER", "revision of the protocol that was spoken"),
    Row(RPC_REQUEST_ID, "SERVER", "the JSON-RPC id, where it is a number or a UUID and not somebody's text"),
    Row(RPC_STATUS, "SERVER, CLIENT", "the JSON-RPC error code that the tool answered"),
    Row(HTTP_METHOD, "SERVER, CLIENT", "the HTTP method: of plain HTTP, and where an MCP request was refused unread"),
    Row(HTTP_STATUS, "SERVER, CLIENT", "plain HTTP: the status that the tool answered"),
    Row(CLIENT_ADDRESS, "SERVER", "address of the peer"),
    Row(ERROR_TYPE, "all", "what went wrong: the reason code of a refusal, or what became of an allowed call"),
    Row(OUTCOME, "SERVER, authorize", "`permitted`, `elevated`, `exception`, `challenged`, `blocked` or `error`"),
    Row(REASON, "SERVER, authorize", "the reason code, of the closed list"),
    Row(DECISION, "SERVER, CLIENT, authorize", "id of the decision's record: the way from a span to the evidence"),
    Row(EFFECT, "SERVER, authorize", "`allow` or `deny`: one value finds all refusals"),
    Row(PRIVILEGED, "SERVER, authorize", "`true` where the call passed as an elevation or an exception, else absent"),
    Row(MODE, "SERVER, authorize", "`enforce`, or `shadow`: recorded only"),
    Row(POLICY, "SERVER, authorize", "the policy whose rule decided"),
    Row(POLICY_VERSION, "SERVER, authorize", "its version, as its author numbers it"),
    Row(POLICY_DIGEST, "SERVER, authorize", "digest of that policy's exact text"),
    Row(POLICY_SET, "SERVER", "digest of the whole set in force"),
    Row(RULE, "SERVER, authorize", "the rule that decided"),
    Row(IDENTITY, "root, SERVER, completed", "`ai_agent`, `service_account`, `workload`, `human` or `anonymous`"),
    Row(SUBJECT, "SERVER", "verified id of the caller; absent for people"),
    Row(DEPTH, "SERVER", "how many acted before the caller, where any did"),
    Row(TASK, "all", "the task's id"),
    Row(APPROVAL, "all", "the question to a person that a call was about; of `approval …` its own"),
    Row(APPROVAL_EVENT, "approval", "how the wait ended: `approved`, `denied`, `expired`, `cancelled`"),
    Row(GRANT, "all", "the elevation that a call was under"),
    Row(EXCEPTION, "all", "the break-glass or waiver that a call was under"),
    Row(EXCEPTION_KIND, "all", "`breakglass` or `waiver`"),
    Row(TASK_DERIVED, "root", "`true` where nobody opened the task: made from session or principal and idle gap"),
    Row(WORKFLOW, "SERVER", "the workflow that the task was opened under"),
    Row(INCIDENT, "root, SERVER", "the incident that the task was opened for"),
    Row(SERVER, "SERVER, CLIENT", "the server that was addressed"),
    Row(TOOL_CLASS, "SERVER", "`read`, `write`, `send`, `exec`, `delete` or `spend`"),
    Row(TOOL_TIER, "SERVER", "`low`, `medium`, `high` or `critical`"),
    Row(COMPLETION, "SERVER, CLIENT", "the completion's code, where the call was allowed and did not simply succeed"),
    Row(HIDDEN, "SERVER", "how many entries of a list the caller was not shown"),
    Row(LEFT_OUT, "SERVER", "how many servers gave nothing for a list of the merged address"),
    Row(LINKED, "SERVER", "the foreign trace that the call came with; the span also links to it"),
    Row(REPEATS, "SERVER", "how many refusals of a stranger the record counts, where it stands for more than one call"),
    Row(ENFORCEMENT, "SERVER", "`external` where somebody else carries the decision out, else absent"),
)


def reference() -> str:
    """The tables of ``docs/telemetry.md``."""
    lines = ["| attribute | on | value |", "| --- | --- | --- |"]
    lines += [f"| `{row.name}` | {row.spans} | {row.meaning} |" for row in (*RESOURCE, *ATTRIBUTES)]
    return "\n".join(lines) + "\n"
