"""What an approver is shown: the document that is laid out on the page and in the terminal, and that an answer signs.

Rules of this file:

1. Everything that an agreement covers is in it, arguments whole. What can't be shown can't be agreed to.
2. Its digest is over canonical JSON (sorted keys), so that whoever has the document can check the digest.
3. It holds values from the call: it is sealed beside the records, never in them.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from whygate.core.ids import sha256_digest

MAX_BYTES: Final = 256 * 1024
"""Of a document: a person does not read more than that, and what nobody reads nobody agrees to."""
_sorted_json: Final = msgspec.json.Encoder(order="sorted").encode


class Shown(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The document."""

    answers: dict[str, Any] = {}
    """What the caller answered to the tool's earlier questions: a part of the call."""
    arguments: dict[str, Any] = {}
    covers: dict[str, Any]
    """What agreeing allows: ``uses``, ``use_within_s``, ``for_task_s``; of an elevation ``ttl_s``, ``uses``, ``arguments``."""
    definition: str = ""
    description: str = ""
    """The tool's own words, as they were pinned: not ours, and not to be believed."""
    incident: str = ""
    narrow: tuple[str, ...] = ()
    on_behalf_of: tuple[str, ...] = ()
    owner: str = ""
    policy: str
    reads: tuple[str, ...] = ()
    """Paths of arguments that the rules looked at."""
    reason: str = ""
    """Why the caller wants an elevation, in its own words: not to be believed either."""
    requester: str
    requester_type: str
    rule: str
    task: str = ""
    tier: str = ""
    tool: str
    tool_class: str = ""
    when: str = ""
    """The rule's condition."""
    why: str
    """The rule's own words."""
    workflow: str = ""


class TooLarge(ValueError):
    """Nobody can be shown all of it."""


def encoded(shown: Shown) -> bytes:
    """The document's bytes. Raises ``TooLarge``."""
    data = _sorted_json(shown)
    if len(data) > MAX_BYTES:
        raise TooLarge(f"{len(data)} bytes; at most {MAX_BYTES} can be shown")
    return data


def decoded(data: bytes) -> Shown:
    return msgspec.json.decode(data, type=Shown)


def digest(data: bytes) -> str:
    return sha256_digest(data)


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody answers. Signed together with what was shown."""

    approve: bool
    narrowed: str = ""
    """Keyed digest of the changed arguments; empty where none were changed."""
    scope: str = "call"
    """``call`` or ``task``."""
    for_s: int = 0
    """With ``task``: for how long."""


def challenge(nonce: bytes, shown_digest: str, choice: Choice) -> bytes:
    """What a passkey signs (as the WebAuthn challenge): SHA-256 of the nonce and the digest of what was shown and chosen."""
    said: Mapping[str, Any] = {"choice": choice, "shown": shown_digest}
    return hashlib.sha256(nonce + hashlib.sha256(_sorted_json(said)).digest()).digest()
