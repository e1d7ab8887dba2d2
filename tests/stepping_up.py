"""A person for tests: somebody who answers what is asked, in the gateway's own process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.servers.gateway import Running

from whygate.core.approvals import Answerer, Approval
from whygate.core.records import Subject
from whygate.flow.approvals import Approvals, Given

ADA = Answerer(id="ada@example.com", groups=("leads",))
BOB = Answerer(id="bob@example.com", groups=("leads",))


def subject(who: Answerer) -> Subject:
    return Subject(id=who.id, proof="passkey", type="human")


def given(approval: Approval, *, approve: bool = True, **more: Any) -> Given:
    return Given(approve=approve, proof="passkey", shown_digest=approval.shown_digest, **more)


async def answer(gateway: Running, *, approve: bool = True, who: Answerer = ADA, **more: Any) -> Approval:
    """Wait for a question, and answer the first one that waits."""
    desk = Approvals(gateway.gateway.authority)
    async with asyncio.timeout(20):
        while not (waiting := desk.waiting()):  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)
    return await desk.answer(waiting[0].id, who, subject(who), given(waiting[0], approve=approve, **more))


@asynccontextmanager
async def somebody(gateway: Running, **how: Any) -> AsyncIterator["asyncio.Task[Approval]"]:
    """Somebody answers the next question while the block runs."""
    task = asyncio.create_task(answer(gateway, **how))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def codes(gateway: Running, only: Callable[[Mapping[str, Any]], bool] = lambda _: True) -> list[str]:
    """The codes of the decisions about tools, in order."""
    found = [one for one in gateway.decisions() if one["action"]["name"] in {"tools/call", "POST"} and only(one)]
    return [one["reason"]["code"] for one in found]
