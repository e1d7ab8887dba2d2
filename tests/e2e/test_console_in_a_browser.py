"""The console in a real browser, with a real passkey ceremony: first sign-in, answers, several people, time running out."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.servers import browser
from tests.servers.browser import Window, windows
from tests.servers.gateway import Running, billing_tool, running

from whygate.core.approvals import Approval, State
from whygate.core.events import Person
from whygate.testing.billing import BillingServer
from whygate.testing.threads import serving

RULES = """
policy: support
version: 1
owner: support@example.com
agents: ["role:support-agent"]
rules:
  - id: small
    tools: [billing/refund]
    when: args.amount_cents <= 5000
    permit: {require: {human: {approvers: ["group:leads"], narrow: [args.amount_cents], for_task: 30m}}}
    why: Refunds need a lead.
  - id: large
    tools: [billing/refund]
    when: args.amount_cents > 5000 && args.amount_cents < 90000
    permit: {require: {human: {approvers: ["group:leads"], quorum: 2}}}
    why: Large refunds need two leads.
  - id: hasty
    tools: [billing/refund]
    when: args.amount_cents >= 90000
    permit: {require: {human: {approvers: ["group:leads"], within: 6s}}}
    why: Asked for a moment.
"""
PAGES = (
    *("/console", "/console/decisions", "/console/grants", "/console/breakglass", "/console/agents"),
    *("/console/tools", "/console/policies", "/console/codes", "/console/figures", "/console/people"),
)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    if browser.binary() is None:
        pytest.skip(browser.INSTALL)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "support.yaml").write_text(RULES)
    with serving(BillingServer("the-gateways-own-secret")) as server:
        tools = {"billing": billing_tool(server, tmp_path)}
        async with running(tmp_path, tools, policies=str(tmp_path / "policies")) as made:
            yield made


def base(gateway: Running) -> str:
    return f"http://localhost:{gateway.operators_url.rpartition(':')[2]}"


async def refund(gateway: Running, amount: int) -> Approval:
    """A refund that somebody is asked about."""
    async with httpx.AsyncClient(headers=gateway.headers(), timeout=20) as http:
        told = await http.post(f"{gateway.url}/http/billing/refunds", json={"amount_cents": amount, "to": "<b>x</b>"})
    approval: Approval = gateway.gateway.authority.state.approvals[told.json()["approval"]]
    return approval


async def enrol(gateway: Running, window: Window, name: str) -> None:
    token = gateway.gateway.people.invite(Person(groups=("leads",), id=name, roles=("approver",)))
    await window.go(f"/console/enrol?token={token}")
    await window.page.click("button.primary")
    await window.page.wait_for_url("**/console")


async def press(window: Window, approval: Approval, button: str = "yes", **fields: str) -> None:
    await window.go(f"/console/approvals/{approval.id}")
    for name, value in fields.items():
        await window.page.fill(f'[name="{name}"]', value)
    async with window.page.expect_navigation():
        await window.page.click(f"button.{button}")


def state(gateway: Running, approval: Approval) -> State:
    found = gateway.gateway.authority.find(approval.id)
    assert found is not None
    return found.state


async def test_the_first_owner_signs_in_out_and_in_again(gateway: Running) -> None:
    """By the link that the terminal shows, then by the passkey alone; every page opens, and no browser complains."""
    async with windows(base(gateway)) as (owner,):
        await owner.go(gateway.gateway.owners_link())
        await owner.page.click("button.primary")
        await owner.page.wait_for_url("**/console")
        for path in PAGES:
            await owner.go(path)
            assert await owner.page.locator("h1").count() == 1, path
        await owner.page.click("text=Sign out")
        await owner.page.wait_for_url("**/console/sign-in")
        await owner.go("/console/people")
        assert "/console/sign-in?next=/console/people" in owner.page.url
        await owner.page.click("button.primary")
        await owner.page.wait_for_url("**/console/people")
        assert owner.complaints == []
    assert gateway.gateway.owners_link() == ""


async def test_approve_deny_and_narrow(gateway: Running) -> None:
    """Each with a touch of the passkey; what is lessened is what the tool gets."""
    async with windows(base(gateway)) as (ada,):
        await enrol(gateway, ada, "ada@example.com")
        await ada.go("/console")
        assert await ada.page.locator("a.row").count() == 0
        approval = await refund(gateway, 4000)
        await ada.page.wait_for_selector("a.row")  # it comes by itself
        await ada.page.keyboard.press("j")
        await ada.page.keyboard.press("Enter")
        await ada.page.wait_for_url(f"**/{approval.id}")
        assert await ada.page.locator("b", has_text="x").count() == 0
        await press(ada, approval, **{"narrow args.amount_cents": "1500"})
        async with httpx.AsyncClient(headers=gateway.headers(), timeout=20) as http:
            url = f"{gateway.url}/http/billing/refunds"
            done = await http.post(url, json={"amount_cents": 4000, "to": "<b>x</b>"})
        assert done.json()["refunded"] == 1500
        other = await refund(gateway, 4001)
        await press(ada, other, "no", note="Not this one.")
        assert state(gateway, other) is State.DENIED
        assert ada.complaints == []
    signed = [one for one in gateway.records() if one["kind"] == "approval" and "signature" in one]
    assert [one["event"] for one in signed] == ["approved", "denied"]
    assert signed[1]["note"] == "Not this one."


async def test_two_people_and_both_at_once(gateway: Running) -> None:
    """Where two must agree, one is not enough; where one is, the second at the same moment is told."""
    async with windows(base(gateway), 2) as (ada, bob):
        await enrol(gateway, ada, "ada@example.com")
        await enrol(gateway, bob, "bob@example.com")
        both = await refund(gateway, 50_000)
        await press(ada, both)
        assert state(gateway, both) is State.PENDING
        await ada.go(f"/console/approvals/{both.id}")
        assert await ada.page.locator("button.yes").count() == 0
        await press(bob, both)
        assert state(gateway, both) is State.APPROVED
        one = await refund(gateway, 4000)
        await asyncio.gather(press(ada, one), press(bob, one, "no"))
        texts = [await window.page.inner_text("main") for window in (ada, bob)]
        assert sum("Not done" in text for text in texts) == 1


async def test_time_runs_out_while_somebody_looks(gateway: Running) -> None:
    """The buttons go, and an answer that is sent all the same counts for nothing."""
    async with windows(base(gateway)) as (ada,):
        await enrol(gateway, ada, "ada@example.com")
        approval = await refund(gateway, 90_000)
        await ada.go(f"/console/approvals/{approval.id}")
        await ada.page.wait_for_selector("button.yes", state="hidden")
        assert "time is over" in await ada.page.inner_text("main")
        await ada.page.wait_for_timeout(1500)  # a countdown shows whole seconds
        await ada.page.evaluate("document.querySelector('.buttons').hidden = false")
        await ada.page.click("button.yes")
        await ada.page.wait_for_timeout(500)
    assert state(gateway, approval) is not State.APPROVED


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_every_page_fits_its_window(gateway: Running, scheme: Any, width: int) -> None:
    """On a desk and on a phone, light and dark: nothing sticks out sideways, and each page has its landmarks."""
    async with windows(base(gateway), color_scheme=scheme, viewport={"width": width, "height": 900}) as (owner,):
        await owner.go(gateway.gateway.owners_link())
        await owner.page.click("button.primary")
        await owner.page.wait_for_url("**/console")
        approval = await refund(gateway, 4000)
        decision = gateway.decisions()[-1]["id"]
        for path in (*PAGES, f"/console/approvals/{approval.id}", f"/console/decisions/{decision}"):
            await owner.go(path)
            wide = await owner.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} wide"
            assert await owner.page.locator("main").count() == 1
