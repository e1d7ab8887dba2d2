"""New policies, or pins, without a restart: when their folder is looked at, and what comes of it.

Rules of this file:

1. What is taken was the same before and after it was read, and nobody changed it for a whole interval (or somebody
   commanded it): half a file of an editor, or half of a set that is being copied, is no set.
2. Reading and compiling happen in a thread, calls go on meanwhile.
3. One look at a time, and none is broken off half-way: see ``Policies.put``.
4. Whatever is wrong with the folder, the set in force stays.

Policies and pins are read the same way: what follows says "policies" of both.
"""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from whygate.core.policy.errors import PolicyError, PolicyErrors
from whygate.core.policy.model import PolicySet
from whygate.flow.pins import Pins
from whygate.flow.policies import AT_START, Asked, Cause, Policies, Refusal
from whygate.flow.ports import LedgerUnavailable

WATCH_S: Final = 1.0
"""Between two looks. A change counts after it has stood still for one interval, so within two seconds."""
READ_TRIES: Final = 3
YIELD_S: Final = 0.0005
"""How long the compiling thread may keep Python's lock from the loop. With Python's own 5 ms, calls took 6.6 ms in the
median and 66 at worst while 1,000 rules were compiled; with this 1.8 and 8.5, and the compiling no longer."""

_log = logging.getLogger("whygate.policies")


class Held(Protocol):
    """What a folder's set comes into force in: ``Policies``, ``Pins``."""

    word: str
    current: Any
    refusal: Refusal | None

    def load(self, texts: Mapping[str, str]) -> Any:
        """The set of these texts; for a thread. Raises ``PolicyErrors``."""

    def digest_of(self, texts: Mapping[str, str]) -> str:
        """The digest that this set would have."""

    def counted(self, loaded: Any) -> str:
        """In words, for the log."""

    def refused_before(self, digest: str) -> Refusal | None: ...

    async def put(self, loaded: Any, asked: Asked) -> None: ...

    async def refuse(self, refused: PolicyErrors, texts: Mapping[str, str], asked: Asked) -> None: ...


H = TypeVar("H", bound=Held)


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
    loaded: Any = None
    """``None`` where there are errors, or where this set is known already."""
    refused: PolicyErrors | None = None


class Reloader(Generic[H]):
    """Looks at a folder and brings what it holds into force. Belongs to the event loop."""

    def __init__(self, held: H, folder: Folder, one_at_a_time: asyncio.Lock | None = None) -> None:
        """``one_at_a_time``: shared with another folder's, of which one depends on the other."""
        self.held = held
        self.loaded_s = 0.0
        """Unix time of the last look that found a good set."""
        self._folder = folder
        self._one_at_a_time = one_at_a_time or asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

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
            _log.info("the %s in %s are being changed; they are looked at again", self.held.word, self._folder)
            return False
        except LedgerUnavailable as broken:
            _log.error("the %s can't be taken: %s", self.held.word, broken)
            return False
        except Exception:  # noqa: BLE001  whatever it is, the watch goes on and the set in force stays
            _log.exception("looking at the %s failed in an unforeseen way", self.held.word)
            return True
        return True

    async def _reload(self, asked: Asked, seen: Hashable) -> Reloaded:
        async with self._one_at_a_time:
            held = self.held
            before, refused_before = held.current, held.refusal
            known = "" if before is None else before.digest
            with _giving_way():
                look = await asyncio.to_thread(_look, self._folder, seen, known, held)
            if look.refused is not None:
                await held.refuse(look.refused, look.texts, asked)
                if held.refusal is not refused_before and before is not None:
                    stays = held.counted(before)
                    told = "%s in %s refused; %s stay in force:\n%s"
                    _log.error(told, held.word, self._folder, stays, look.refused)
                return self._made("refused", look.refused.errors)
            self.loaded_s = time.time()
            if look.loaded is None:
                if refused_before is not None:
                    _log.info("the %s in %s are again those in force", held.word, self._folder)
                held.refusal = None
                return self._made("unchanged")
            await held.put(look.loaded, asked)
            if before is not None:
                _log.info("new %s in force: %s; before: %s", held.word, held.counted(look.loaded), held.counted(before))
            return self._made("in_force")

    def _made(self, event: str, errors: tuple[PolicyError, ...] = ()) -> Reloaded:
        current = self.held.current
        return Reloaded(event=event, digest="" if current is None else current.digest, errors=errors)


def _look(folder: Folder, seen: Hashable, known: str, held: Held) -> _Look:
    """Read and compile. For a thread: changes nothing that it is given. Raises ``Unsettled``."""
    texts = _read(folder, seen)
    if isinstance(texts, PolicyErrors):
        return _Look(refused=texts)
    digest = held.digest_of(texts)
    if digest == known:
        return _Look(texts=texts)
    earlier = held.refused_before(digest)
    if earlier is not None:
        return _Look(texts=texts, refused=PolicyErrors(earlier.errors))
    try:
        return _Look(texts=texts, loaded=held.load(texts))
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
    raise Unsettled("the folder was changed while it was read; try again when that is done")


@contextlib.contextmanager
def _giving_way() -> Iterator[None]:
    """While a thread computes, the loop gets its turns. One at a time: see rule 3."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(YIELD_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)


class PolicyReloader(Reloader[Policies]):
    """For policies: a start goes on with the last good set."""

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
        if self.held.current is None:
            raise PolicyErrors(reloaded.errors)
        return self.held.current

    def _take_up(self, texts: Mapping[str, str], refused: PolicyErrors) -> None:
        try:
            taken = self.held.take_up(texts)
        except PolicyErrors:
            _log.error("the last good policies can't be read by this version")
            raise refused from None
        if not taken:
            raise refused
        _log.error(
            "policies in %s refused; started with the last good ones, %s:\n%s",
            self._folder,
            self.held.counted(self.held.current),
            refused,
        )


class PinReloader(Reloader[Pins]):
    """For pins: a start goes on without those of a bad file."""

    async def start(self) -> None:
        """The first set. Raises ``LedgerUnavailable``."""
        try:
            reloaded = await self.reload(AT_START)
        except Unsettled:
            return  # nothing is pinned until the watch finds them standing still
        if reloaded.event == "refused":
            try:
                texts = await asyncio.to_thread(self._folder.read)
            except PolicyErrors:
                texts = {}
            await self.held.start_with(texts, reloaded.errors)
