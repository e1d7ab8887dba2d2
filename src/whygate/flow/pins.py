"""The pins in force, and the records of what servers make of them.

Rules of this file:

1. As with policies: a set of pins with an error never comes into force while the gateway runs, the last good one stays,
   and both are records. At the start there is no last good one: the servers whose files are bad have no pins then.
2. A tool that differs from its pin is out of use before it is recorded; back in use it comes after that is recorded.
3. A change is recorded once. A server that changes its mind all the time is told of once an hour, and what it changes
   stays out of use meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from whygate.core import pins as files
from whygate.core.ids import sha256_digest
from whygate.core.instants import to_us
from whygate.core.pins import PinSet
from whygate.core.policy.errors import PolicyError, PolicyErrors
from whygate.core.records import VERSION, ToolRecord
from whygate.flow.catalogue import NO_PINS, Catalogue, Change
from whygate.flow.policies import AT_START, MAX_ERROR, MAX_ERRORS, MAX_REFUSED, Asked, Refusal, named
from whygate.flow.ports import Clock, Ids, Ledger, LedgerUnavailable
from whygate.flow.subjects import subject_of

MAX_TOLD: Final = 200
"""Records of changes of one server in an hour."""
HOUR_US: Final = 3_600_000_000

_log = logging.getLogger("whygate.tools")


class _Told(msgspec.Struct):
    """How often a server's changes were recorded lately."""

    since_us: int
    count: int = 0


class Pins:
    """Holds the pins in force. Belongs to the event loop."""

    word = "pins"

    def __init__(self, ledger: Ledger, clock: Clock, new_ids: Ids, catalogue: Catalogue) -> None:
        self._ledger = ledger
        self._clock = clock
        self._ids = new_ids
        self._catalogue = catalogue
        self._recorded: dict[str, Refusal] = {}
        self._told: dict[str, _Told] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self.current: PinSet | None = None
        """``None`` until the first set is in force: nothing is pinned then."""
        self.refusal: Refusal | None = None
        """What was refused last, where nothing was taken after it."""
        self.after: Callable[[], None] = lambda: None
        """Called when other pins have come into force."""
        catalogue.tell = self.heard

    load = staticmethod(files.load)
    digest_of = staticmethod(files.digest_of)

    async def put(self, loaded: PinSet, asked: Asked) -> None:
        """Make a set the one in force, durably. Raises ``LedgerUnavailable``."""
        self._ledger.put_policy(loaded.digest, loaded.texts)
        await self._ledger.append(self._record("in_force", asked, loaded.texts, digest=loaded.digest))
        self._recorded.clear()
        self.current = loaded
        self.refusal = None
        self._catalogue.put(loaded)
        self.after()

    async def refuse(self, refused: PolicyErrors, texts: Mapping[str, str], asked: Asked) -> None:
        """Record a set that can't come into force, once. Raises ``LedgerUnavailable``."""
        digest = files.digest_of(texts) if texts else ""
        key = digest or sha256_digest(str(refused).encode())
        known = self._recorded.get(key)
        if known is None:
            record = self._record("refused", asked, texts, errors=refused.errors[:MAX_ERRORS])
            await self._ledger.append(record)
            known = Refusal(key=key, digest=digest, errors=refused.errors, at=record.time)
            if len(self._recorded) >= MAX_REFUSED:
                self._recorded.clear()
            self._recorded[key] = known
        self.refusal = known

    def refused_before(self, digest: str) -> Refusal | None:
        """What was wrong with the set of this digest, where it was refused since the last one came into force."""
        return self._recorded.get(digest)

    async def start_with(self, texts: Mapping[str, str], errors: Sequence[PolicyError]) -> None:
        """At the start: the files without an error. Raises ``LedgerUnavailable``."""
        bad = {error.file for error in errors}
        _log.error("pins refused; these servers have none until they are mended:\n%s", PolicyErrors(tuple(errors)))
        refusal = self.refusal
        try:
            usable = files.load({file: text for file, text in texts.items() if file not in bad})
        except PolicyErrors:  # the errors are of no file that there is: nothing is usable
            usable = NO_PINS
        await self.put(usable, AT_START)
        self.refusal = refusal

    def heard(self, changes: Sequence[Change], cause: str) -> None:
        """A server says something else than before. Returns at once; the records follow."""
        task = asyncio.get_running_loop().create_task(self._tell(list(changes), cause))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def finish(self) -> None:
        """Wait for records that are being written."""
        await asyncio.gather(*self._writing, return_exceptions=True)

    async def _tell(self, changes: list[Change], cause: str) -> None:
        for change in changes:
            record = self._of_change(change, cause)
            if record is None:
                continue
            try:
                await self._ledger.append(record)
            except LedgerUnavailable as broken:
                _log.error("%s: %s is not recorded: %s", record.tool, change.event, broken)
                self._catalogue.forget(change)
                continue
            if change.event == "restored":
                self._catalogue.restore(change.server, change.name)
            level = logging.INFO if change.event == "restored" else logging.WARNING
            _log.log(level, _SAID[record.event], record.tool)

    def _of_change(self, change: Change, cause: str) -> ToolRecord | None:
        """Its record; ``None`` where the server has used up what is told of it."""
        now_us = to_us(self._clock.now())
        told = self._told.get(change.server)
        if told is None or now_us - told.since_us >= HOUR_US:
            told = self._told[change.server] = _Told(since_us=now_us)
        told.count += 1
        if told.count > MAX_TOLD:
            return None
        unsettled = told.count == MAX_TOLD
        return ToolRecord(
            cause=cause,
            definition="" if unsettled else change.definition,
            event="unsettled" if unsettled else change.event,
            id=self._ids.new(),
            kind="tool",
            pinned="" if unsettled else change.pinned,
            tool=change.server if unsettled else f"{change.server}/{change.name}",
            v=VERSION,
        )

    def _record(
        self,
        event: str,
        asked: Asked,
        texts: Mapping[str, str],
        *,
        digest: str = "",
        errors: tuple[PolicyError, ...] = (),
    ) -> ToolRecord:
        return ToolRecord(
            cause=asked.cause.value,
            digest=digest,
            errors=tuple(str(error)[:MAX_ERROR] for error in errors),
            event=event,
            files=named(texts),
            id=self._ids.new(),
            kind="tool",
            subject=subject_of(asked.by) if asked.by is not None else None,
            v=VERSION,
        )

    @staticmethod
    def counted(pins: PinSet | None) -> str:
        """``14 tools, sha256:0123456789ab``."""
        if pins is None:
            return "none"
        many = len(pins.by_tool)
        return f"{many} tool{'' if many == 1 else 's'}, {pins.digest[:19]}"


_SAID: Final = {
    "new": "%s is not pinned: calls are refused. See `whygate tools pin`",
    "changed": "%s differs from its pin: calls are refused. See `whygate tools pin`",
    "restored": "%s is as pinned again: calls are possible",
    "gone": "%s is pinned, and no longer listed by its server",
    "unsettled": "%s changes its tools too often: further changes are not recorded within the hour",
}
