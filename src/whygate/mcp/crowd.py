"""Who is here now: exchanges by whom they are for, so that all of an agent that is switched off can be ended."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from whygate.core.identity import Principal


class Crowd:
    """Owned by the event loop."""

    def __init__(self) -> None:
        self._here: dict[str, set[asyncio.Task[Any]]] = {}
        self._apart: set[asyncio.Task[Any]] = set()

    @contextlib.contextmanager
    def of(self, principal: Principal) -> Iterator[None]:
        """The running task works for ``principal``, and for whom that acts, while the block lasts."""
        task = asyncio.current_task()
        if task is None or not principal.authenticated:
            yield
            return
        names = (principal.id, *(each.id for each in principal.on_behalf_of))
        for name in names:
            self._here.setdefault(name, set()).add(task)
        try:
            yield
        finally:
            for name in names:
                below = self._here[name]
                below.discard(task)
                if not below:
                    del self._here[name]

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """The running task is not cut off while the block lasts: it waits, and is told otherwise."""
        task = asyncio.current_task()
        if task is not None:
            self._apart.add(task)
        try:
            yield
        finally:
            self._apart.discard(task)

    def cut(self, name: str) -> int:
        """End every exchange that is for this agent; how many there were. What was under way is recorded as cut off."""
        tasks = tuple(self._here.get(name, set()) - self._apart)
        for task in tasks:
            task.cancel()
        return len(tasks)
