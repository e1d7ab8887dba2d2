"""An agent on plain httpx: what a refusal looks like to a program, and what to do about it."""

import os
import sys
from typing import Any

import httpx

GATEWAY = os.environ.get("WHYGATE_URL", "http://127.0.0.1:8700")
HEADERS = {"authorization": f"Bearer {os.environ['WHYGATE_TOKEN']}"}
if task := os.environ.get("WHYGATE_TASK"):
    HEADERS["whygate-task"] = task


class Refused(Exception):
    """The gateway said no. ``next`` tells what can be done: fix_call, request, retry, wait, fix_credential, none."""

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.code: str = problem["code"]
        self.next: str = problem["next"]
        self.decision: str = problem["id"]


def call(client: httpx.Client, method: str, path: str, **options: Any) -> Any:
    """Call a tool; raise ``Refused`` where the gateway refuses (RFC 9457 problem document)."""
    answer = client.request(method, path, **options)
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        raise Refused(answer.json())
    answer.raise_for_status()
    return answer.json()


def refund(client: httpx.Client, invoice: str, cents: int) -> str:
    """Refund ``cents``, or as much as a person has to agree to, or nothing."""
    try:
        call(client, "POST", "/refunds", json={"invoice_id": invoice, "amount_cents": cents})
    except Refused as refused:
        if refused.next == "request":
            return f"waits for a person ({refused.code}, decision {refused.decision})"
        if refused.next == "fix_call":
            return f"the call itself is wrong: {refused}"
        return f"not possible: {refused} ({refused.code})"
    return "done"


def main() -> None:
    with httpx.Client(base_url=f"{GATEWAY}/http/billing", headers=HEADERS, timeout=30) as client:
        try:
            invoice = call(client, "GET", "/invoices/1042")
        except Refused as refused:
            sys.exit(f"refused: {refused} ({refused.code})")
        except httpx.TransportError as error:
            sys.exit(f"the gateway at {GATEWAY} can't be reached: {error}")
        print(f"invoice {invoice['id']}: {invoice['total_cents']} cents, {invoice['status']}")
        for cents in (4_500, 250_000, 9_000_000):
            print(f"refund of {cents} cents: {refund(client, '1042', cents)}")


if __name__ == "__main__":
    main()
