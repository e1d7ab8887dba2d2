"""The vocabulary: six outcomes and one closed list of reason codes.

Rules of this file:

1. One code has one outcome. A reader that meets a code it does not know goes by the outcome.
2. A code is never renamed; a retired one stays here, marked, so that it is never given a new meaning.
3. Two texts for each reason. ``meaning`` is for auditors and operators. ``user`` is what an agent may see: what was
   refused and what it can do next, never a rule's text or threshold, because an agent under somebody else's control
   would use them as an oracle.

``docs/reason-codes.md`` is generated from this table.
"""

from enum import StrEnum
from typing import Final

import msgspec


class Outcome(StrEnum):
    """What became of a question. Closed set."""

    PERMITTED = "permitted"
    ELEVATED = "elevated"
    EXCEPTION = "exception"
    CHALLENGED = "challenged"
    BLOCKED = "blocked"
    ERROR = "error"

    @property
    def allows(self) -> bool:
        """Whether the call goes upstream."""
        return self in _ALLOWING

    @property
    def effect(self) -> str:
        """``allow`` or ``deny``: always derived from the outcome, never stored on its own authority."""
        return "allow" if self.allows else "deny"


_ALLOWING: Final = frozenset({Outcome.PERMITTED, Outcome.ELEVATED, Outcome.EXCEPTION})


class Next(StrEnum):
    """What the caller can do now (``next`` in every answer)."""

    NONE = "none"
    FIX_CALL = "fix_call"
    FIX_CREDENTIAL = "fix_credential"
    REQUEST = "request"
    RETRY = "retry"
    WAIT = "wait"


class Code(StrEnum):
    """A machine-readable reason. Closed list, version 1."""

    ROLE_PERMITTED = "role.permitted"
    POLICY_PUBLIC_TOOL = "policy.public_tool"
    STEP_UP_SATISFIED = "step_up.satisfied"
    AUTHN_SATISFIED = "authn.satisfied"
    DELEGATION_PERMITTED = "delegation.permitted"
    JIT_GRANT_ACTIVE = "jit.grant_active"
    JIT_AUTO_APPROVED = "jit.auto_approved"
    BREAK_GLASS_INVOKED = "break_glass.invoked"
    EXCEPTION_WAIVER_ACTIVE = "exception.waiver_active"
    STEP_UP_REQUIRED = "step_up.required"
    STEP_UP_PENDING = "step_up.pending"
    AUTHN_INSUFFICIENT = "authn.insufficient"
    SCOPE_INSUFFICIENT = "scope.insufficient"
    JIT_GRANT_REQUIRED = "jit.grant_required"
    JIT_GRANT_PENDING = "jit.grant_pending"
    JIT_GRANT_EXPIRED = "jit.grant_expired"
    JIT_OUT_OF_SCOPE = "jit.out_of_scope"
    BREAK_GLASS_AVAILABLE = "break_glass.available"
    CHAIN_UNTRUSTED_ARGUMENT = "chain.untrusted_argument"
    STEP_UP_DENIED = "step_up.denied"
    STEP_UP_EXPIRED = "step_up.expired"
    STEP_UP_BINDING_MISMATCH = "step_up.binding_mismatch"
    APPROVAL_UNVERIFIABLE = "approval.unverifiable"
    APPROVAL_SELF_APPROVAL = "approval.self_approval"
    JIT_NOT_ELIGIBLE = "jit.not_eligible"
    JIT_GRANT_REVOKED = "jit.grant_revoked"
    POLICY_EXPLICIT_DENY = "policy.explicit_deny"
    POLICY_NO_MATCH = "policy.no_match"
    ARGS_LIMIT_EXCEEDED = "args.limit_exceeded"
    ARGS_NOT_ALLOWED = "args.not_allowed"
    ARGS_SCHEMA_INVALID = "args.schema_invalid"
    ARGS_TOO_LARGE = "args.too_large"
    CHAIN_TAINTED_EXFILTRATION = "chain.tainted_exfiltration"
    CHAIN_SEQUENCE_VIOLATION = "chain.sequence_violation"
    CHAIN_DEPTH_EXCEEDED = "chain.depth_exceeded"
    CHAIN_UNTRUSTED_ARGUMENT_REFUSED = "chain.untrusted_argument_refused"
    BUDGET_EXCEEDED = "budget.exceeded"
    RATE_LIMITED = "rate.limited"
    QUOTA_EXCEEDED = "quota.exceeded"
    DELEGATION_INVALID = "delegation.invalid"
    DELEGATION_SCOPE_WIDENED = "delegation.scope_widened"
    AGENT_SUSPENDED = "agent.suspended"
    AGENT_RETIRED = "agent.retired"
    AGENT_UNAUTHENTICATED = "agent.unauthenticated"
    AGENT_TOKEN_EXPIRED = "agent.token_expired"
    AGENT_TOKEN_AUDIENCE = "agent.token_audience"
    TASK_NOT_USABLE = "task.not_usable"
    HANDLE_NOT_USABLE = "handle.not_usable"
    QUESTION_REFUSED = "question.refused"
    TOOL_UNKNOWN = "tool.unknown"
    TOOL_UNPINNED = "tool.unpinned"
    TOOL_SCHEMA_CHANGED = "tool.schema_changed"
    TOOL_POISONED = "tool.poisoned"
    RESOURCE_TENANT_MISMATCH = "resource.tenant_mismatch"
    WINDOW_CLOSED = "window.closed"
    RISK_TOO_HIGH = "risk.too_high"
    OBLIGATION_UNFULFILLED = "obligation.unfulfilled"
    BREAK_GLASS_REVIEW_OVERDUE = "break_glass.review_overdue"
    ERASURE_LEGAL_HOLD = "erasure.legal_hold"
    REQUEST_MALFORMED = "request.malformed"
    REQUEST_DUPLICATE_KEY = "request.duplicate_key"
    REQUEST_BATCH = "request.batch"
    REQUEST_TOO_LARGE = "request.too_large"
    REQUEST_HEADER_MISMATCH = "request.header_mismatch"
    REQUEST_ORIGIN_REFUSED = "request.origin_refused"
    REQUEST_METHOD_UNKNOWN = "request.method_unknown"
    REQUEST_SERVER_UNKNOWN = "request.server_unknown"
    REQUEST_VERSION_UNSUPPORTED = "request.version_unsupported"
    REQUEST_PATH_AMBIGUOUS = "request.path_ambiguous"
    POLICY_EVAL_ERROR = "policy.eval_error"
    POLICY_INVALID = "policy.invalid"
    POLICY_STALE = "policy.stale"
    PDP_UNAVAILABLE = "pdp.unavailable"
    PDP_MAPPING_ERROR = "pdp.mapping_error"
    CONTEXT_INCOMPLETE = "context.incomplete"
    AUDIT_UNAVAILABLE = "audit.unavailable"
    OVERLOAD_SHED = "overload.shed"
    INTERNAL_ERROR = "internal.error"
    # Completions: the call was allowed; what became of it, or of its result.
    RESULT_TOO_LARGE = "result.too_large"
    RESULT_MASKED = "result.masked"
    RESULT_BLOCKED = "result.blocked"
    RESULT_QUESTION_REFUSED = "result.question_refused"
    UPSTREAM_FAILED = "upstream.failed"
    UPSTREAM_TIMEOUT = "upstream.timeout"
    OUTCOME_UNKNOWN = "outcome.unknown"

    @property
    def entry(self) -> "Entry":
        return TABLE[self]

    @property
    def outcome(self) -> Outcome:
        """The one outcome of this code. Raises ``LookupError`` for a code that only completions carry."""
        found = TABLE[self].outcome
        if found is None:
            raise LookupError(f"{self} belongs to completions and has no outcome")
        return found


class Entry(msgspec.Struct, frozen=True):
    """One row of the table."""

    outcome: Outcome | None
    """``None``: carried by completions only."""
    meaning: str
    """For auditors and operators."""
    user: str
    """What an agent may see."""
    next: Next
    remedy: str
    """What an operator or owner does about it. Empty where nothing is to be done."""


_P, _L, _X = Outcome.PERMITTED, Outcome.ELEVATED, Outcome.EXCEPTION
_C, _B, _E = Outcome.CHALLENGED, Outcome.BLOCKED, Outcome.ERROR

_ALLOWED = "The call was allowed."
_REFUSED = "This call is not allowed for you. Do not retry it; try another way or ask the person you work for."

TABLE: Final[dict[Code, Entry]] = {
    Code.ROLE_PERMITTED: Entry(_P, "A rule for this agent and tool permits the call.", _ALLOWED, Next.NONE, ""),
    Code.POLICY_PUBLIC_TOOL: Entry(
        _P,
        "The method is open to every authenticated caller (lists, the handshake, what goes on with a call of its own).",
        _ALLOWED,
        Next.NONE,
        "",
    ),
    Code.STEP_UP_SATISFIED: Entry(_P, "A person approved exactly this call.", _ALLOWED, Next.NONE, ""),
    Code.AUTHN_SATISFIED: Entry(
        _P, "The person behind the call has signed in recently and strongly enough.", _ALLOWED, Next.NONE, ""
    ),
    Code.DELEGATION_PERMITTED: Entry(
        _P, "The authority of the person on whose behalf the agent acts covers the call.", _ALLOWED, Next.NONE, ""
    ),
    Code.JIT_GRANT_ACTIVE: Entry(_L, "An active just-in-time grant covers the call.", _ALLOWED, Next.NONE, ""),
    Code.JIT_AUTO_APPROVED: Entry(
        _L, "A rule approved the elevation without a person.", _ALLOWED, Next.NONE, "Review a sample of these."
    ),
    Code.BREAK_GLASS_INVOKED: Entry(
        _X,
        "Emergency access with an incident; a review is owed.",
        _ALLOWED,
        Next.NONE,
        "Answer the review in 24 hours.",
    ),
    Code.EXCEPTION_WAIVER_ACTIVE: Entry(
        _X,
        "A named, time-bound waiver overrode an overridable deny.",
        _ALLOWED,
        Next.NONE,
        "Renew the waiver or mend the policy.",
    ),
    Code.STEP_UP_REQUIRED: Entry(
        _C,
        "The policy wants a person to agree to this call.",
        "A person has to approve this call first. Tell the person you work for; once it is approved, repeat the same "
        "call unchanged.",
        Next.REQUEST,
        "An approver answers the request.",
    ),
    Code.STEP_UP_PENDING: Entry(
        _C,
        "The same call is already waiting for a person.",
        "This call is already waiting for a person's answer. Repeat the same call unchanged later.",
        Next.WAIT,
        "An approver answers the request.",
    ),
    Code.AUTHN_INSUFFICIENT: Entry(
        _C,
        "The sign-in of the person behind the call is too old or too weak (RFC 9470).",
        "The person you work for has to sign in again before this call.",
        Next.REQUEST,
        "The person signs in again.",
    ),
    Code.SCOPE_INSUFFICIENT: Entry(
        _C,
        "The token lacks a scope that the rule requires.",
        "Your token lacks a scope for this call. Ask for a token with the scopes named in the challenge.",
        Next.REQUEST,
        "Authorise the scope at the identity provider.",
    ),
    Code.JIT_GRANT_REQUIRED: Entry(
        _C,
        "The rule permits the call only under a just-in-time grant.",
        "This call needs a temporary elevation. Ask for one, or tell the person you work for.",
        Next.REQUEST,
        "Grant the entitlement for this task.",
    ),
    Code.JIT_GRANT_PENDING: Entry(
        _C,
        "The grant is approved but not yet in force.",
        "The elevation is on its way. Repeat the call shortly.",
        Next.RETRY,
        "",
    ),
    Code.JIT_GRANT_EXPIRED: Entry(
        _C,
        "The grant has ended or its uses are spent.",
        "The elevation has ended. Ask for a new one.",
        Next.REQUEST,
        "Grant the entitlement again.",
    ),
    Code.JIT_OUT_OF_SCOPE: Entry(
        _C,
        "A grant exists, but it does not cover this tool or these arguments.",
        "Your elevation does not cover this call. Ask for one that does.",
        Next.REQUEST,
        "Grant a wider entitlement.",
    ),
    Code.BREAK_GLASS_AVAILABLE: Entry(
        _C,
        "Only break-glass would allow this call.",
        "This call is possible only in a declared emergency. Tell the person you work for.",
        Next.REQUEST,
        "Open break-glass with an incident.",
    ),
    Code.CHAIN_UNTRUSTED_ARGUMENT: Entry(
        _C,
        "An argument's value comes neither from the task nor from the operator's catalogue.",
        "A person has to confirm a value in this call first. Tell the person you work for.",
        Next.REQUEST,
        "An approver looks at the value and where it came from.",
    ),
    Code.STEP_UP_DENIED: Entry(
        _B, "An approver refused.", "A person refused this call. Do not retry it.", Next.NONE, "Talk to the approver."
    ),
    Code.STEP_UP_EXPIRED: Entry(
        _B,
        "Nobody answered in time; silence is a refusal.",
        "Nobody answered in time. If the call is still needed, make it again.",
        Next.REQUEST,
        "Make the call again.",
    ),
    Code.STEP_UP_BINDING_MISMATCH: Entry(
        _B,
        "The approval that was presented is for other arguments.",
        "The approval is for other arguments. Repeat exactly what was approved, or ask anew.",
        Next.FIX_CALL,
        "Approve the new arguments.",
    ),
    Code.APPROVAL_UNVERIFIABLE: Entry(
        _B,
        "The approval that was presented is unknown, used up or not genuine.",
        "The approval presented can't be accepted. Make the call without it.",
        Next.FIX_CALL,
        "Investigate: a forged or replayed handle is a sign of tampering.",
    ),
    Code.APPROVAL_SELF_APPROVAL: Entry(
        _B, "The approver is the requester, or of its chain.", _REFUSED, Next.NONE, "Another person approves."
    ),
    Code.JIT_NOT_ELIGIBLE: Entry(
        _B, "This agent may not ask for this entitlement.", _REFUSED, Next.NONE, "The owner changes eligibility."
    ),
    Code.JIT_GRANT_REVOKED: Entry(
        _B, "The grant was withdrawn.", "Your elevation was withdrawn.", Next.NONE, "Ask who withdrew it, and why."
    ),
    Code.POLICY_EXPLICIT_DENY: Entry(_B, "A rule denies the call.", _REFUSED, Next.NONE, "Read the rule that decided."),
    Code.POLICY_NO_MATCH: Entry(
        _B,
        "No rule permits the call; what is not permitted is refused.",
        _REFUSED,
        Next.NONE,
        "If the agent should be able to do this, add a rule.",
    ),
    Code.ARGS_LIMIT_EXCEEDED: Entry(
        _B,
        "An argument is above its cap.",
        "A value in this call is above what you may use. Use a lower one, or ask the person you work for.",
        Next.FIX_CALL,
        "",
    ),
    Code.ARGS_NOT_ALLOWED: Entry(
        _B,
        "An argument has a value or a shape that the policy forbids.",
        "A value in this call is not one you may use. Use another, or ask the person you work for.",
        Next.FIX_CALL,
        "",
    ),
    Code.ARGS_SCHEMA_INVALID: Entry(
        _B,
        "The arguments do not fit the tool's input schema.",
        "The arguments do not fit the tool's input schema. Correct them and call again.",
        Next.FIX_CALL,
        "",
    ),
    Code.ARGS_TOO_LARGE: Entry(
        _B,
        "The arguments are larger or deeper than a policy may be asked to look at.",
        "The arguments are too large or too deeply nested. Send less in one call.",
        Next.FIX_CALL,
        "",
    ),
    Code.CHAIN_TAINTED_EXFILTRATION: Entry(
        _B,
        "Untrusted content, sensitive data and an outward channel meet in one task.",
        _REFUSED,
        Next.NONE,
        "Start a clean task, or let a person do this step.",
    ),
    Code.CHAIN_SEQUENCE_VIOLATION: Entry(
        _B,
        "A call that must come first is missing, or the order is forbidden.",
        "This call is not possible at this point of the task.",
        Next.NONE,
        "",
    ),
    Code.CHAIN_DEPTH_EXCEEDED: Entry(
        _B,
        "The delegation is deeper than the policy allows.",
        "Too many agents have passed this work on.",
        Next.NONE,
        "Flatten the delegation.",
    ),
    Code.CHAIN_UNTRUSTED_ARGUMENT_REFUSED: Entry(
        _B,
        "An argument's value comes from untrusted content, and the policy asks nobody.",
        _REFUSED,
        Next.NONE,
        "Name the value in the task or in the catalogue.",
    ),
    Code.BUDGET_EXCEEDED: Entry(
        _B,
        "A budget of money, calls or bytes is spent.",
        "The budget for this is spent.",
        Next.REQUEST,
        "Raise the budget, or wait for its window to pass.",
    ),
    Code.RATE_LIMITED: Entry(
        _B, "A rate window is full.", "Too many calls in a short time. Slow down and retry.", Next.RETRY, ""
    ),
    Code.QUOTA_EXCEEDED: Entry(
        _B,
        "This caller's records, tasks, holds or pending approvals are at their bound.",
        "You have too much open at once, or call too often. Finish something or wait a while, then retry.",
        Next.RETRY,
        "Raise the quota if it is honest work.",
    ),
    Code.DELEGATION_INVALID: Entry(
        _B,
        "The token's chain of actors can't be verified or is too long (RFC 8693 section 4.1).",
        "The delegation in your token can't be accepted.",
        Next.FIX_CREDENTIAL,
        "Mend the token exchange.",
    ),
    Code.DELEGATION_SCOPE_WIDENED: Entry(
        _B, "A delegate asks for more than its parent has.", _REFUSED, Next.NONE, "Narrow the delegation."
    ),
    Code.AGENT_SUSPENDED: Entry(
        _B,
        "The agent is suspended.",
        "You are suspended. Stop, and tell the person you work for.",
        Next.NONE,
        "The owner resumes the agent.",
    ),
    Code.AGENT_RETIRED: Entry(
        _B,
        "The inventory says that the agent is retired.",
        "You are retired. Stop, and tell the person you work for.",
        Next.NONE,
        "Find out who still runs it, and withdraw its credential.",
    ),
    Code.AGENT_UNAUTHENTICATED: Entry(
        _B,
        "No credential, or one that proves nothing.",
        "Your credential is missing or can't be accepted. Send a valid one as a bearer token.",
        Next.FIX_CREDENTIAL,
        "Check the credential and the configured issuers and keys.",
    ),
    Code.AGENT_TOKEN_EXPIRED: Entry(
        _B,
        "The token is past its end, or before its beginning.",
        "Your token has expired. Get a new one.",
        Next.FIX_CREDENTIAL,
        "",
    ),
    Code.AGENT_TOKEN_AUDIENCE: Entry(
        _B,
        "The token is for another audience (RFC 8707).",
        "Your token is meant for another service. Get one for this gateway.",
        Next.FIX_CREDENTIAL,
        "Check the audience that the client asks for.",
    ),
    Code.TASK_NOT_USABLE: Entry(
        _B,
        "The task that was named is unknown, has ended, or does not name this caller.",
        "The task named in this call is not one you can use. Leave it out, or ask whoever gave it to you.",
        Next.FIX_CALL,
        "Check the task's allowed agents and its end.",
    ),
    Code.HANDLE_NOT_USABLE: Entry(
        _B,
        "A handle that a server gave out (a task's id, a request's state) came back from another caller, with another call, "
        "changed, or after this gateway had forgotten it.",
        "The task or state named in this call is not one that you can use. Begin anew with the call that gave it to you.",
        Next.FIX_CALL,
        "After a restart, or among thousands of tasks, this is honest; else somebody tries what is another's.",
    ),
    Code.QUESTION_REFUSED: Entry(
        _B,
        "A server asked the caller for something in a way that no rule can allow: unreadably, by a method that clients don't "
        "have, or for a page that is not encrypted or whose host can be read in two ways.",
        "This may not be asked through this gateway.",
        Next.NONE,
        "Talk to whoever runs the server.",
    ),
    Code.TOOL_UNKNOWN: Entry(
        _B,
        "No such tool in the catalogue.",
        "There is no such tool here.",
        Next.NONE,
        "Register the tool, if it is one.",
    ),
    Code.TOOL_UNPINNED: Entry(
        _B,
        "No operator has accepted this tool's definition yet.",
        "This tool is not ready for use.",
        Next.NONE,
        "Look at the definition and pin it.",
    ),
    Code.TOOL_SCHEMA_CHANGED: Entry(
        _B,
        "The tool's definition differs from the one that was accepted.",
        "This tool has changed and is not ready for use.",
        Next.NONE,
        "Look at the difference and pin it again.",
    ),
    Code.TOOL_POISONED: Entry(
        _B,
        "The tool's definition tries to instruct the agent.",
        "This tool is not ready for use.",
        Next.NONE,
        "Talk to whoever runs the tool.",
    ),
    Code.RESOURCE_TENANT_MISMATCH: Entry(_B, "The object belongs to another tenant.", _REFUSED, Next.NONE, ""),
    Code.WINDOW_CLOSED: Entry(
        _B,
        "Outside the time window, or in a change freeze.",
        "This is not possible at this time.",
        Next.RETRY,
        "Wait, or add a waiver.",
    ),
    Code.RISK_TOO_HIGH: Entry(_B, "A risk or posture signal is too high.", _REFUSED, Next.NONE, "Look at the signal."),
    Code.OBLIGATION_UNFULFILLED: Entry(
        _B,
        "Something that the permission obliges us to do failed or is not supported.",
        _REFUSED,
        Next.NONE,
        "Mend the integration.",
    ),
    Code.BREAK_GLASS_REVIEW_OVERDUE: Entry(
        _B, "No new break-glass until the last one is reviewed.", _REFUSED, Next.NONE, "Answer the open review."
    ),
    Code.ERASURE_LEGAL_HOLD: Entry(
        _B,
        "An erasure is refused: a legal hold covers the records.",
        _REFUSED,
        Next.NONE,
        "Talk to whoever placed the hold.",
    ),
    Code.REQUEST_MALFORMED: Entry(
        _B,
        "The request can't be read unambiguously.",
        "The request can't be read. Correct it and send it again.",
        Next.FIX_CALL,
        "",
    ),
    Code.REQUEST_DUPLICATE_KEY: Entry(
        _B,
        "A JSON object, a query or the arguments as a whole carry the same key twice.",
        "The request carries the same key twice. Send each key once.",
        Next.FIX_CALL,
        "",
    ),
    Code.REQUEST_BATCH: Entry(
        _B,
        "JSON-RPC batches are not accepted.",
        "Batches are not accepted. Send one call at a time.",
        Next.FIX_CALL,
        "",
    ),
    Code.REQUEST_TOO_LARGE: Entry(
        _B,
        "The request's body is above the cap.",
        "The request is too large. Send less in one call.",
        Next.FIX_CALL,
        "",
    ),
    Code.REQUEST_HEADER_MISMATCH: Entry(
        _B,
        "A routing header disagrees with the body, is missing, or is there twice.",
        "The request's headers and its body disagree.",
        Next.FIX_CALL,
        "Update the client.",
    ),
    Code.REQUEST_ORIGIN_REFUSED: Entry(
        _B,
        "The Host or Origin header names a place that is not ours (DNS rebinding).",
        "This origin is not accepted.",
        Next.NONE,
        "Add the host to public_url or allowed_hosts if it is ours.",
    ),
    Code.REQUEST_METHOD_UNKNOWN: Entry(
        _B, "The method is not one that this address knows.", "This method is not available here.", Next.NONE, ""
    ),
    Code.REQUEST_SERVER_UNKNOWN: Entry(
        _B,
        "No such server or tool address.",
        "There is no such server here.",
        Next.NONE,
        "Check the URL and the config.",
    ),
    Code.REQUEST_VERSION_UNSUPPORTED: Entry(
        _B,
        "The protocol revision is not one we speak.",
        "This protocol revision is not supported.",
        Next.FIX_CALL,
        "Update the client.",
    ),
    Code.REQUEST_PATH_AMBIGUOUS: Entry(
        _B,
        "The path can be read in two ways (encoded slashes, dot segments, override headers).",
        "The path can be read in more than one way. Send it in its plain form.",
        Next.FIX_CALL,
        "",
    ),
    Code.POLICY_EVAL_ERROR: Entry(
        _E,
        "A rule that applies could not be evaluated; a rule that can't be read opens no door.",
        "The call could not be decided and was refused. Repeating it unchanged will not help.",
        Next.NONE,
        "Read which rule failed on what, and guard it with has() or mend the caller.",
    ),
    Code.POLICY_INVALID: Entry(
        _E,
        "No usable policy is loaded.",
        "The gateway can't decide at the moment. Try again later.",
        Next.RETRY,
        "Mend the policy and load it.",
    ),
    Code.POLICY_STALE: Entry(
        _E,
        "The policy is older than it may be.",
        "The gateway can't decide at the moment. Try again later.",
        Next.RETRY,
        "Restore the policy's source.",
    ),
    Code.PDP_UNAVAILABLE: Entry(
        _E,
        "A decision point did not answer.",
        "The gateway can't decide at the moment. Try again later.",
        Next.RETRY,
        "Check the decision point.",
    ),
    Code.PDP_MAPPING_ERROR: Entry(
        _E,
        "The question to a decision point could not be built.",
        "The call could not be decided and was refused.",
        Next.NONE,
        "Mend the mapping.",
    ),
    Code.CONTEXT_INCOMPLETE: Entry(
        _E,
        "A fact that the decision needs could not be had.",
        "The gateway can't decide at the moment. Try again later.",
        Next.RETRY,
        "Restore the source of the fact.",
    ),
    Code.AUDIT_UNAVAILABLE: Entry(
        _E,
        "The decision could not be written down; no record, no call.",
        "The gateway can't record calls at the moment and lets none through. Try again later.",
        Next.RETRY,
        "Restore the ledger's disk or database.",
    ),
    Code.OVERLOAD_SHED: Entry(
        _E,
        "The gateway refused early rather than fall over.",
        "The gateway is busy. Try again shortly.",
        Next.RETRY,
        "Add capacity, or find who floods it.",
    ),
    Code.INTERNAL_ERROR: Entry(
        _E,
        "The gateway failed in a way it did not foresee; the call was refused.",
        "The gateway failed and refused the call. Try again later.",
        Next.RETRY,
        "Look at the log and report it.",
    ),
    Code.RESULT_TOO_LARGE: Entry(
        None, "The result was above its cap and was cut off.", "The result is too large.", Next.FIX_CALL, ""
    ),
    Code.RESULT_MASKED: Entry(
        None, "Parts of the result were masked by rule.", "Parts of the result are hidden.", Next.NONE, ""
    ),
    Code.RESULT_BLOCKED: Entry(None, "The result was withheld by rule.", "The result is withheld.", Next.NONE, ""),
    Code.RESULT_QUESTION_REFUSED: Entry(
        None,
        "Instead of an answer there came a question that the server may not ask; it was withheld from the caller.",
        "Before it goes on, the server wants something asked that may not be asked through this gateway. Try another way or "
        "tell the person you work for.",
        Next.NONE,
        "The question has a decision of its own, which says why. If the server is to ask it, permit it by a rule.",
    ),
    Code.UPSTREAM_FAILED: Entry(
        None,
        "The call was allowed; the tool could not be reached or broke off.",
        "The tool could not be reached. It may or may not have acted.",
        Next.RETRY,
        "Check the tool.",
    ),
    Code.UPSTREAM_TIMEOUT: Entry(
        None,
        "The call was allowed; the tool did not answer in time.",
        "The tool did not answer in time. It may or may not have acted.",
        Next.RETRY,
        "Check the tool.",
    ),
    Code.OUTCOME_UNKNOWN: Entry(
        None,
        "The call was allowed; the gateway stopped before it knew what became of it.",
        "It is not known what became of the call.",
        Next.NONE,
        "Ask the tool what it did.",
    ),
}
