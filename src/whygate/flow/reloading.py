"""New policies without a restart: when the folder is looked at, and what comes of it.

Rules of this file:

1. What is taken was the same before and after it was read, and nobody changed it for a whole interval (or somebody
   commanded it): half a file of an editor, or half of a set that is being copied, is no set.
2. Reading and compiling happen in a thread, calls go on meanwhile.
3. One look at a time, and none is broken off half-way: see ``Policies.put``.
4. Whatever is wrong with the folder, the set in force stays.
"""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Final, Protocol

import msgspec

from whygate.core.policy.errors import PolicyError, PolicyErrors
from whygate.core.policy.model import PolicySet, digest_of
from whygate.core.policy.parse import load
from whygate.flow.policies import AT_START, Asked, Cause, Policies, Refusal, counted
from whygate.flow.ports import LedgerUnavailable

WATCH_S: Final = 1.0
"""Between two looks. A change counts after it has stood still for one interval, so within two seconds."""
READ_TRIES: Final = 3
YIELD_S: Final = 0.0005
"""How long the compiling thread may keep Python's lock from the loop. With Python's own 5 ms, calls took 6.6 ms in the
median and 66 at worst while 1,000 rules were compiled; with this 1.8 and 8.5, and the compiling no longer."""

_log = logging.getLogger("whygate.policies")


class Folder(Protocol):
    """Where policies come from. Both methods block, and are called in threads."""

    def read(self) -> Mapping[str, str]:
        """All texts by file name. Raises ``PolicyErrors``."""

    def seen(self) -> Hashable:
        """Equal as long as nothing was changed. Never raises."""


class Unsettled(Exception):
    """The folder was changed while it was read, again and again. Nothing was taken."""


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a look at the folder."""

    event: str
    """``in_force``, ``unchanged`` or ``refused``."""
    digest: str
    """Of the set in force now."""
    errors: tuple[PolicyError, ...] = ()


class _Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a thread found in the folder."""

    texts: Mapping[str, str] = {}
    loaded: PolicySet | None = None
    """``None`` where there are errors, or where this set is known already."""
    refused: PolicyErrors | None = None


class Reloader:
    """Looks at a policy folder and brings what it holds into force. Belongs to the event loop."""

    def __init__(self, policies: Policies, folder: Folder) -> None:
        self.policies = policies
        self.loaded_s = 0.0
        """Unix time of the last look that found a good set."""
        self._folder = folder
        self._one_at_a_time = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    async def start(self, kept: Callable[[str], Mapping[str, str]], digest: str) -> PolicySet:
        """The first set. Where the folder's is refused: the last good one, whose ``digest`` the ledger names and whose
        texts ``kept`` gives.

        Raises ``PolicyErrors`` where there is neither, and ``LedgerUnavailable``.
        """
        try:
            reloaded = await self.reload(AT_START)
        except Unsettled as changing:
            error = PolicyError(file=str(self._folder), line=1, column=1, message=str(changing))
            raise PolicyErrors((error,)) from None
        if reloaded.event == "refused":
            self._take_up(kept(digest) if digest else {}, PolicyErrors(reloaded.errors))
        if self.policies.current is None:
            raise PolicyErrors(reloaded.errors)
        return self.policies.current

    def _take_up(self, texts: Mapping[str, str], refused: PolicyErrors) -> None:
        try:
            taken = self.policies.take_up(texts)
        except PolicyErrors:
            _log.error("the last good policies can't be read by this version")
            raise refused from None
        if not taken:
            raise refused
        _log.error(
            "policies in %s refused; started with the last good ones, %s:\n%s",
            self._folder,
            counted(self.policies.current),
            refused,
        )

    async def reload(self, asked: Asked, seen: Hashable = None) -> Reloaded:
        """Look at the folder now, and take only what looks like ``seen``, if that is given. Goes on to its end even where
        the caller is cancelled.

        Raises ``Unsettled`` and ``LedgerUnavailable``.
        """
        task = asyncio.create_task(self._reload(asked, seen))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    def soon(self, cause: Cause) -> None:
        """Look at the folder as soon as the loop comes to it; for a signal, which waits for nothing."""
        task = asyncio.create_task(self._quietly(Asked(cause=cause)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def finish(self) -> None:
        """Wait for looks that have begun."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def watch(self) -> None:
        """Look at the folder whenever it was changed and then left alone for an interval. Never returns."""
        last: Hashable = None
        taken: Hashable = None
        while True:
            await asyncio.sleep(WATCH_S)
            seen = await asyncio.to_thread(self._folder.seen)
            if seen == last and seen != taken and await self._quietly(Asked(cause=Cause.FOLDER), seen):
                taken = seen
            last = seen

    async def _quietly(self, asked: Asked, seen: Hashable = None) -> bool:
        """Whether something came of it, for those who have nobody to tell."""
        try:
            await self.reload(asked, seen)
        except Unsettled:
            _log.info("the policies in %s are being changed; they are looked at again", self._folder)
            return False
        except LedgerUnavailable as broken:
            _log.error("the policies can't be taken: %s", broken)
            return False
        except Exception:  # noqa: BLE001  whatever it is, the watch goes on and the set in force stays
            _log.exception("looking at the policies failed in an unforeseen way")
            return True
        return True

    async def _reload(self, asked: Asked, seen: Hashable) -> Reloaded:
        async with self._one_at_a_time:
            policies = self.policies
            before, refused_before = policies.current, policies.refusal
            known = "" if before is None else before.digest
            with _giving_way():
                look = await asyncio.to_thread(_look, self._folder, seen, known, policies.refused_before)
            if look.refused is not None:
                await policies.refuse(look.refused, look.texts, asked)
                if policies.refusal is not refused_before and before is not None:
                    stays = counted(before)
                    _log.error("policies in %s refused; %s stay in force:\n%s", self._folder, stays, look.refused)
                return self._made("refused", look.refused.errors)
            self.loaded_s = time.time()
            if look.loaded is None:
                if refused_before is not None:
                    _log.info("the policies in %s are again those in force", self._folder)
                policies.refusal = None
                return self._made("unchanged")
            await policies.put(look.loaded, asked)
            if before is not None:
                _log.info("new policies in force: %s; before: %s", counted(look.loaded), counted(before))
            return self._made("in_force")

    def _made(self, event: str, errors: tuple[PolicyError, ...] = ()) -> Reloaded:
        current = self.policies.current
        return Reloaded(event=event, digest="" if current is None else current.digest, errors=errors)


def _look(folder: Folder, seen: Hashable, known: str, refused_before: Callable[[str], Refusal | None]) -> _Look:
    """Read and compile. For a thread: touches nothing but what it is given. Raises ``Unsettled``."""
    texts = _read(folder, seen)
    if isinstance(texts, PolicyErrors):
        return _Look(refused=texts)
    digest = digest_of(texts)
    if digest == known:
        return _Look(texts=texts)
    earlier = refused_before(digest)
    if earlier is not None:
        return _Look(texts=texts, refused=PolicyErrors(earlier.errors))
    try:
        return _Look(texts=texts, loaded=load(texts))
    except PolicyErrors as refused:
        return _Look(texts=texts, refused=refused)


def _read(folder: Folder, seen: Hashable) -> Mapping[str, str] | PolicyErrors:
    """The texts, or what is wrong with them, that stood still while they were read."""
    for _ in range(READ_TRIES):
        before = folder.seen()
        if seen is not None and before != seen:
            break
        texts: Mapping[str, str] | PolicyErrors
        try:
            texts = folder.read()
        except PolicyErrors as wrong:
            texts = wrong
        if folder.seen() == before:
            return texts
    raise Unsettled("the policies were changed while they were read; try again when that is done")


@contextlib.contextmanager
def _giving_way() -> Iterator[None]:
    """While a thread computes, the loop gets its turns. One at a time: see rule 3."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(YIELD_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)
