"""The running gateway, for commands that change something: where it is, who asks, and what it answered.

The token comes from the environment alone: what stands on a command line, everybody on the machine can read.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import httpx
import typer

from whygate.cli.reading import MISUSE, NO, fail, load_config
from whygate.cli.words import plain

TOKEN: Final = "WHYGATE_TOKEN"  # noqa: S105  the name of the variable, not what is in it
TIMEOUT_S: Final = 10.0

GatewayUrl = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="WHYGATE_URL",
        help="The operators' listener of the gateway. Default: as configured. Token: $WHYGATE_TOKEN.",
    ),
]


def has_token() -> bool:
    return bool(os.environ.get(TOKEN))


class Gateway:
    """One gateway, as somebody with a token. All end the command where it can't be reached, or says no."""

    def __init__(self, url: str, config: Path) -> None:
        self.url = (url or f"http://{load_config(config).operators_listen}").rstrip("/")
        token = os.environ.get(TOKEN, "")
        if not token:
            fail(
                MISUSE,
                f"Who asks? ${TOKEN} is not set.",
                "Put the token of your sign-in there: it is never given as an option.",
            )
        self._headers = {"authorization": f"Bearer {token}"}

    def get(self, *path: str) -> Any:
        return self._send("GET", path).json()

    def find(self, *path: str) -> Any | None:
        """``None`` where there is none."""
        answer = self._send("GET", path, missing=True)
        return None if answer.status_code == 404 else answer.json()

    def post(self, *path: str, body: dict[str, Any] | None = None) -> Any:
        return self._send("POST", path, body).json()

    def delete(self, *path: str) -> Any:
        return self._send("DELETE", path).json()

    def _send(
        self, method: str, path: tuple[str, ...], body: dict[str, Any] | None = None, *, missing: bool = False
    ) -> httpx.Response:
        url = "/".join((self.url, "v1", *(quote(each, safe="") for each in path)))
        try:
            answer = httpx.request(method, url, json=body, headers=self._headers, timeout=TIMEOUT_S)
        except (httpx.HTTPError, httpx.InvalidURL) as wrong:
            fail(
                MISUSE,
                f"The gateway at {plain(self.url)} can't be reached: {plain(str(wrong))}",
                "Is it running? Give --url URL.",
            )
        if answer.is_success or (missing and answer.status_code == 404):
            return answer
        _refused(answer)
        raise AssertionError  # it ends there


def _refused(answer: httpx.Response) -> None:
    """Say what the gateway said, and end."""
    try:
        said = answer.json()
    except ValueError:
        said = {}
    said = said if isinstance(said, dict) else {}
    errors = [f"{one.get('key', '')}: {one.get('message', '')}" for one in said.get("errors", ())]
    what = said.get("detail") or said.get("title") or f"status {answer.status_code}"
    code = f" ({said['code']})" if said.get("code") else ""
    advice = [f"Finish here: {said['console']}"] if said.get("console") else errors
    if said.get("id"):
        advice.append(f"whygate why {said['id']}")
    fail(NO, plain(f"No: {what}{code}"), "\n".join(map(plain, advice)))
