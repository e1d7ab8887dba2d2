"""A gateway's heart that dies: asks twice, has both approved, uses one, and is killed without a word.

``dies_after_a_use.py LEDGER``: prints the two approvals' ids first.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.gatekeeping import World, call
from tests.stepping_up import ADA, given, subject

from whygate.flow.approvals import Approvals
from whygate.stores.sqlite import SqliteLedger

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


async def asked(world: World, amount: int) -> str:
    """Ask about a call, and have it approved."""
    admission = await world.gate.admit(call("write", args={"amount": amount}))
    assert admission.approval is not None
    await Approvals(world.authority).answer(admission.approval.id, ADA, subject(ADA), given(admission.approval))
    return admission.approval.id


async def main(path: Path) -> None:
    world = await World(SqliteLedger(path, start={})).load(RULES)  # type: ignore[arg-type]  # as good as the one in memory
    ids = [await asked(world, amount) for amount in (1, 2)]
    used = await world.gate.admit(call("write", args={"amount": 1}))
    print(*ids, used.allowed, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
