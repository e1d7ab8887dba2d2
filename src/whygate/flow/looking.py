"""The gateway's own look at what servers say of their tools: at its start, then every few minutes.

An agent may never ask for a list, and call by a name that it knows; so the gateway asks by itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from whygate.flow.catalogue import Catalogue

LOOK_S: Final = 300.0
"""Between two looks at one server. For a program it is a start, which takes a second or two of a core."""
GAP_S: Final = 5.0
"""Whatever stirs, no server is asked more often."""

_log = logging.getLogger("whygate.tools")


class Looker:
    """Belongs to the event loop."""

    def __init__(self, servers: Iterable[str], ask: Callable[[str], Awaitable[Sequence[bytes]]], catalogue: Catalogue):
        """``ask`` gives all definitions of a server, or raises."""
        self._ask = ask
        self._catalogue = catalogue
        self._stirred = {name: asyncio.Event() for name in servers}
        self._unreached: set[str] = set()
        self._one_at_a_time = asyncio.Lock()

    async def watch(self) -> None:
        """Never returns."""
        # Not gather: cancelled, it would be done as soon as the first of them is, with programs of the others still there.
        async with asyncio.TaskGroup() as group:
            for name in self._stirred:
                group.create_task(self._watch(name))

    def soon(self, server: str = "") -> None:
        """Look at a server, or at all, without waiting for its turn."""
        for name, event in self._stirred.items():
            if server in ("", name):
                event.set()

    async def _watch(self, name: str) -> None:
        while True:
            self._stirred[name].clear()
            async with self._one_at_a_time:  # starting ten programs at once would take the machine from the agents
                await self._look(name)
            await asyncio.sleep(GAP_S)
            try:
                async with asyncio.timeout(LOOK_S - GAP_S):
                    await self._stirred[name].wait()
            except TimeoutError:
                continue

    async def _look(self, name: str) -> None:
        try:
            given = await self._ask(name)
        except Exception as wrong:  # noqa: BLE001  whatever a server does, the others are looked at
            if name not in self._unreached:
                self._unreached.add(name)
                _log.warning("%s: its tools can't be looked at: %s", name, wrong)
            return
        self._unreached.discard(name)
        self._catalogue.listed(name, given, "look")
