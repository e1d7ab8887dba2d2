"""Correlation as it comes in by header: ``traceparent`` and whygate's own."""

import re
from typing import Final

from whygate.core.calls import Hints
from whygate.core.ids import parse_traceparent
from whygate.transport.asgi import Exchange

_WAIT: Final = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,5})\"?\s*(?:$|[,;])", re.IGNORECASE)
_LABEL: Final = re.compile(r"[\x21-\x7e]{1,128}")


def label(text: str | None) -> str:
    """A workflow's, incident's or task's id as a client may send it: up to 128 visible ASCII characters; anything else
    counts as absent.
    """
    return text if text is not None and _LABEL.fullmatch(text) else ""


def wait_of(prefer: str | None) -> int | None:
    """For how many seconds a client is willing to wait (``Prefer: wait=10``, RFC 7240 section 4.3); ``None`` where it does not
    say.
    """
    found = None if not prefer else _WAIT.search(prefer)
    return None if found is None else int(found[1])


def from_headers(exchange: Exchange) -> Hints:
    """The hints that headers give. A ``traceparent`` that is there twice, or is not valid, counts as absent."""
    parents = exchange.values(b"traceparent")
    return Hints(
        task=task_label(exchange.header(b"whygate-task")),
        workflow=label(exchange.header(b"whygate-workflow")),
        incident=label(exchange.header(b"whygate-incident")),
        parent=parse_traceparent(parents[0]) if len(parents) == 1 else None,
    )


def task_label(text: str | None) -> str:
    """A task's id. What is sent but can't be one stays wrong (``task.not_usable``) instead of being overlooked."""
    if not text:
        return ""
    return label(text) or "unreadable"
