"""A real browser with a passkey in it, for the tests of what people see."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

INSTALL = "no Chromium: install Debian's chromium, or name its binary in WHYGATE_CHROMIUM"
_KEY = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


def binary() -> Path | None:
    """The Chromium that WHYGATE_CHROMIUM names, else the one on the path."""
    named = os.environ.get("WHYGATE_CHROMIUM")
    found = named or shutil.which("chromium") or shutil.which("google-chrome")
    return Path(found) if found and os.access(found, os.X_OK) else None


class Window:
    """One person's window: cookies and passkey of its own."""

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base
        self.complaints: list[str] = []
        """What the browser says in its console: of the content policy, of scripts that fail."""
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    async def go(self, path: str) -> None:
        await self.page.goto(self.base + path if path.startswith("/") else path)


@asynccontextmanager
async def windows(base: str, count: int = 1, **context: Any) -> AsyncIterator[list[Window]]:
    """So many people's windows on the console at ``base``."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=binary(), args=["--no-sandbox"])
        made = []
        for _ in range(count):
            own = await browser.new_context(**context)
            page = await own.new_page()
            page.set_default_timeout(10_000)
            session = await own.new_cdp_session(page)
            await session.send("WebAuthn.enable")
            await session.send("WebAuthn.addVirtualAuthenticator", {"options": _KEY})
            made.append(Window(page, base))
        try:
            yield made
        finally:
            await browser.close()
