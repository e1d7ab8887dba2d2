"""The people of the demo: somebody at a browser, or, where nobody comes, a scripted approver that says so.

The script has a passkey in software and goes through the console like a person: signs in, reads, signs, reviews.
"""

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from whygate.stores.reader import Reader
from whygate.testing.authenticator import Visitor

GRACE: Final = "grace@example.com"
HEIDI: Final = "heidi@example.com"
LOOK_S: Final = 0.2
_ROW: Final = re.compile(r'href="/console/approvals/([0-9a-f-]{36})"')
_SHOWN: Final = re.compile(r'name="shown_digest" value="([^"]+)"')
_LINK: Final = re.compile(r"/console/enrol\?token=([A-Za-z0-9_-]+)")
_OPENED: Final = re.compile(r"/console/breakglass/([0-9a-f-]{36})/(close|review)")


class Lost(Exception):
    """The script does not find on a page what it needs."""


def somebody_came(ledger: Path, within_s: float) -> bool:
    """Whether a person has taken up the owner's link; waits for that long."""
    ends = time.monotonic() + within_s
    while True:
        with Reader(ledger) as reader:
            if reader.in_force().people:
                return True
        if time.monotonic() >= ends:
            return False
        time.sleep(LOOK_S)


class Script:
    """Grace, a finance lead who may break glass; and Heidi, who reviews what Grace does."""

    def __init__(self, operators_url: str, console_url: str, link: str) -> None:
        self._urls = operators_url, console_url
        self.grace, self.heidi = self._visitor(), self._visitor()
        self.answered: list[str] = []
        _went(self.grace.enrol(_token(link)))

    def _visitor(self) -> Visitor:
        return Visitor(*self._urls)

    def close(self) -> None:
        self.grace.close()
        self.heidi.close()

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Grace agrees to whatever is asked, for as long as the block lasts."""
        over = threading.Event()
        thread = threading.Thread(target=self._answer, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(10)

    def _answer(self, over: threading.Event) -> None:
        while not over.wait(LOOK_S):
            with contextlib.suppress(httpx.TransportError, Lost):
                for approval in _ROW.findall(self.grace.http.get("/console").text):
                    page = self.grace.http.get(f"/console/approvals/{approval}").text
                    shown = _SHOWN.search(page)
                    if shown is not None:
                        _went(self.grace.answer(approval, shown[1], note="Checked against the claim."))
                        self.answered.append(approval)

    def break_glass(self, agent: str, tool: str, incident: str) -> None:
        fields = {"agents": agent, "tools": tool, "incident": incident, "minutes": "5"}
        reason = "The claims repository is stuck, and the desk is waiting."
        _went(self.grace.post("/console/breakglass", reason=reason, **fields))

    def close_glass(self) -> None:
        _went(self.grace.post(f"/console/breakglass/{self._opened()}/close"))

    def review(self) -> None:
        """Heidi comes by Grace's invitation, and answers the review."""
        invited = self.grace.post("/console/people", id=HEIDI, name="Heidi", **{"role operator": "1"})
        _went(self.heidi.enrol(_token(invited.text)))
        note = "One reset, as the incident says. Nothing was lost."
        _went(self.heidi.post(f"/console/breakglass/{self._opened()}/review", finding="justified", note=note))

    def _opened(self) -> str:
        page = self.grace.http.get("/console/breakglass").text
        found = _OPENED.search(page)
        if found is None:
            page = self.heidi.http.get("/console/breakglass").text
            found = _OPENED.search(page)
        if found is None:
            raise Lost("no break-glass on the page")
        return found[1]


def _token(text: str) -> str:
    found = _LINK.search(text)
    if found is None:
        raise Lost("no link to enrol with")
    return found[1]


def _went(answer: httpx.Response) -> None:
    if answer.status_code != 303:
        raise Lost(f"{answer.request.url.path}: {answer.status_code}")
