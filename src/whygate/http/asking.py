"""A plain HTTP call that a person has to agree to: held where the caller is willing to wait, and sent with the arguments that
the approver left it.
"""

import asyncio
from typing import Final

import msgspec

from whygate.core.strict_json import Unreadable, loads
from whygate.flow.ports import Admission, Gate
from whygate.transport.asgi import ClientGone, Exchange
from whygate.transport.hints import wait_of

MOST_S: Final = 50.0
"""Clients and what stands between give up at 60."""
_encode: Final = msgspec.json.Encoder().encode


async def asked_again(gate: Gate, exchange: Exchange, admission: Admission) -> Admission:
    """The decision after the answer, where it comes while the caller waits (``Prefer: wait=N``, RFC 7240); else the challenge.

    Raises ``ClientGone``.
    """
    wait_s = min(float(wait_of(exchange.header(b"prefer")) or 0), MOST_S)
    if admission.approval is None or wait_s <= 0:
        return admission
    loop = asyncio.get_running_loop()
    with exchange.resting():
        gone = loop.create_task(exchange.gone())
        answered = loop.create_task(_settled(gate, admission, wait_s))
        try:
            await asyncio.wait((gone, answered), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            answered.cancel()
        if not answered.done():
            raise ClientGone
        if not answered.result():
            return admission
    return await gate.admit(msgspec.structs.replace(admission.call, presented=admission.approval.id))


async def _settled(gate: Gate, admission: Admission, wait_s: float) -> bool:
    return bool(await gate.settled(admission, wait_s))


def narrowed(body: bytes, admission: Admission, media: str) -> bytes | None:
    """The body with the arguments that an approver changed; ``None`` where they are not its members."""
    args, before = admission.call.args, admission.before or {}
    if not body or not (media == "application/json" or media.endswith("+json")):
        return None
    try:
        value = loads(body, forwarded=True)
    except Unreadable:
        return None
    if not isinstance(value, dict) or not value.keys() <= args.keys():
        return None
    elsewhere = before.keys() - value.keys()
    if any(args.get(name) != before[name] for name in elsewhere):
        return None
    return _encode({name: args[name] for name in value})
