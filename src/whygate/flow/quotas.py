"""What one caller may have under way and may open. Belongs to the event loop; a restart forgets it.

A caller at its bound is refused like by any gate (``quota.exceeded``, recorded); nobody else notices. Tasks that are derived
for a caller have their bound in ``tasks``: beyond it its calls share one, so that honest work goes on.
"""

from typing import Final

MAX_IN_FLIGHT: Final = 128
"""Calls of one caller: an eighth of what the listener takes, so that one alone can't have the others turned away."""
STREAMS: Final = frozenset(("GET", "subscriptions/listen"))
"""MCP's streams of news, which rest for hours: in flight only until they are admitted. The listener has a bound for them."""
FORGOTTEN_NS: Final = 600 * 1_000_000_000
"""A call counts for ten minutes. What has no end by then waits for something that may never come (an answer put off to
another stream), and must not keep its caller out for ever."""
RECORDED_PER_HOUR: Final = 1_000_000
"""Calls of one caller, all at once or spread. A fleet that shares an identity comes to 280 a second, around the clock; the ledger
grows by at most 2 GB an hour for it."""
REFUSED_PER_HOUR: Final = 36_000
"""Of these, refused ones. Honest work is seldom refused, and stops to think when it is; a loop that does not is worth 50 MB
an hour, and then a count."""
TASKS_PER_HOUR: Final = 2000
"""Opened by one person or host, all at once or spread: one in two seconds, for a scheduler that is kept busy."""
MAX_OPEN_TASKS: Final = 20_000
"""Of one opener, at once: some 20 MB."""
HOUR_US: Final = 3600 * 1_000_000
_OPENERS: Final = 10_000
"""Remembered; those who have opened nothing for long are forgotten first, and could open all they may anyway."""


class InFlight:
    """Calls that were begun and have not ended, by caller."""

    def __init__(self) -> None:
        self._running: dict[str, dict[int, int]] = {}
        """By caller and ticket: when it began (monotonic, nanoseconds), oldest first."""
        self._tickets = 0

    def begin(self, caller: str, now_ns: int) -> int:
        """A ticket for ``end``; 0 where the caller has too many calls under way."""
        running = self._running.get(caller)
        if running is None:
            running = self._running[caller] = {}
        elif len(running) >= MAX_IN_FLIGHT:
            oldest = next(iter(running))
            if now_ns - running[oldest] < FORGOTTEN_NS:
                return 0
            del running[oldest]
        self._tickets += 1
        running[self._tickets] = now_ns
        return self._tickets

    def end(self, caller: str, ticket: int) -> None:
        """The call has ended. What is not known (any more) is nothing to be told."""
        running = self._running.get(caller)
        if running is not None:
            running.pop(ticket, None)
            if not running:
                del self._running[caller]


class PerHour:
    """How often each may do something: a bucket that fills evenly."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._spent: dict[str, tuple[float, int]] = {}
        """By whom: how much of the bucket is spent, as of when (microseconds); who spent last comes last."""

    def take(self, who: str, now_us: int) -> bool:
        """Whether ``who`` may once more; it then counts as done."""
        spent, at_us = self._spent.pop(who, (0.0, now_us))
        spent = max(0.0, spent - self._most * max(now_us - at_us, 0) / HOUR_US)
        fits = spent + 1 <= self._most
        self._spent[who] = (spent + 1 if fits else spent, now_us)
        if len(self._spent) > _OPENERS:
            del self._spent[next(iter(self._spent))]
        return fits
