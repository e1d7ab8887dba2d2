"""What people agreed to, after a ``kill -9``: what was used stays used, what was not can be used once."""

import asyncio
import subprocess
import sys
from pathlib import Path

from tests.clients.dies_after_a_use import RULES
from tests.gatekeeping import World, call

from whygate.core.reasons import Code
from whygate.stores.sqlite import SqliteLedger

ROOT = Path(__file__).parents[2]


async def test_spent_is_spent_and_unspent_is_there_once(tmp_path: Path) -> None:
    """On the real ledger, by a process that was killed in between; and 64 at once are still one."""
    path = tmp_path / "whygate.db"
    command = [sys.executable, "-m", "tests.clients.dies_after_a_use", str(path)]
    ran = await asyncio.to_thread(subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == -9, ran.stderr
    used, unused, allowed = ran.stdout.split()
    assert allowed == "True"
    ledger = SqliteLedger(path, start={})
    try:
        world = await World(ledger).load(RULES)  # type: ignore[arg-type]  # as good as the one in memory
        state = world.authority.state.approvals
        assert used not in state
        assert state[unused].uses_left == 1
        again = await world.gate.admit(call("write", args={"amount": 1}))
        assert again.decision.code is Code.STEP_UP_REQUIRED
        many = await asyncio.gather(*(world.gate.admit(call("write", args={"amount": 2})) for _ in range(64)))
        assert sum(each.allowed for each in many) == 1
    finally:
        await asyncio.to_thread(ledger.close)
