"""Webhooks to real receivers: signed, repeated where they were not taken, never delayed by one that hangs."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.gatekeeping import World, call
from tests.stepping_up import ADA, given, subject

from whygate.channels.webhooks import Receiver, Webhooks
from whygate.flow.approvals import Approvals

SECRET = "a secret of theirs"
RULES = {
    "p.yaml": """
policy: p
version: 1
owner: o@example.com
agents: ["*"]
rules:
  - {id: write, tools: [billing/write], permit: {require: {human: {approvers: ["group:leads"]}}}, why: Asks.}
"""
}
Answers = Callable[[int], str | None]


class Inbox:
    """A receiver of its own: answers each request by number; ``None`` hangs."""

    def __init__(self, answers: Answers = lambda _: "204 No Content") -> None:
        self._answers = answers
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.arrived = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                self.got.append((fields, body))
                self.arrived.set()
                answer = self._answers(len(self.got))
                if answer is None:
                    await asyncio.sleep(60)
                writer.write(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n".encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self.arrived.clear()
                await self.arrived.wait()


@asynccontextmanager
async def receiving(inbox: Inbox) -> AsyncIterator[str]:
    server = await asyncio.start_server(inbox, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()


@asynccontextmanager
async def told(*receivers: Receiver) -> AsyncIterator[World]:
    world = await World().load(RULES)
    hooks = Webhooks(receivers, world.authority, "https://gate.example")
    hooks.start()
    try:
        yield world
    finally:
        await hooks.close()


async def ask(world: World, amount: int = 1) -> Any:
    return (await world.gate.admit(call("write", args={"amount": amount, "secret": "hunter2"}))).approval


async def test_a_question_and_its_answer_are_told_signed_and_without_values() -> None:
    """With a link that leads to signing in; nothing of the arguments goes out."""
    inbox = Inbox()
    async with receiving(inbox) as url, told(Receiver(url=url, secret=SECRET)) as world:
        approval = await ask(world)
        await Approvals(world.authority).answer(approval.id, ADA, subject(ADA), given(approval))
        await inbox.wait(2)
    fields, body = inbox.got[0]
    signed = f"{fields['webhook-id']}.{fields['webhook-timestamp']}.".encode() + body
    mac = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    assert (
        fields["webhook-signature"] == f"v1,{mac}".lower() or fields["webhook-signature"].lower() == f"v1,{mac}".lower()
    )
    message = json.loads(body)
    assert message["type"] == "approval.asked"
    assert message["data"]["url"] == f"https://gate.example/console/approvals/{approval.id}"
    assert [json.loads(each)["type"] for _, each in inbox.got] == ["approval.asked", "approval.approved"]
    assert b"hunter2" not in b"".join(each for _, each in inbox.got)


async def test_it_is_sent_again_under_the_same_id_until_it_is_taken() -> None:
    """After a failure of theirs; a refusal of theirs is taken at its word, and a redirect leads nowhere."""
    inbox = Inbox(lambda number: "503 Busy" if number == 1 else "302 Found\r\nlocation: http://127.0.0.1:1/inward")
    async with receiving(inbox) as url, told(Receiver(url=url, secret=SECRET, slack=True)) as world:
        await ask(world)
        await inbox.wait(2)
        await asyncio.sleep(0.2)
    assert len(inbox.got) == 2
    assert len({fields["webhook-id"] for fields, _ in inbox.got}) == 1
    assert set(json.loads(inbox.got[0][1])) == {"text"}


async def test_one_that_hangs_delays_nobody() -> None:
    """Neither other receivers nor calls."""
    hanging, other = Inbox(lambda _: None), Inbox()
    async with (
        receiving(hanging) as slow,
        receiving(other) as quick,
        told(Receiver(url=slow, secret=SECRET), Receiver(url=quick, secret=SECRET)) as world,
    ):
        async with asyncio.timeout(5):
            for amount in range(5):
                await ask(world, amount)
            await other.wait(5)
    assert len(hanging.got) <= 1


@pytest.mark.parametrize("secret", ["plain", "whsec_" + base64.b64encode(b"x" * 24).decode()])
def test_no_secret_shows(secret: str) -> None:
    """Not where a receiver is printed."""
    assert secret not in repr(Receiver(url="https://chat.example/x", secret=secret))
