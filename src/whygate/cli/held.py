"""What is in force beside the policy, for commands that show it: from the gateway, or from the ledger's file.

Whoever has a token (``$WHYGATE_TOKEN``) asks the gateway; else the ledger's file is read, whether the gateway runs or is
down. Both tell the same (``core.told``). The document that approvers are shown is encrypted in the ledger: from there it can be
shown to whoever may read the gateway's keys.
"""

import datetime
from pathlib import Path
from typing import Any

import msgspec

from whygate.cli.gateway import Gateway, has_token
from whygate.cli.reading import decoded, ledger_path, load_config, reading
from whygate.core import told
from whygate.core.events import ApprovalRecord
from whygate.core.in_force import InForce
from whygate.core.instants import to_us
from whygate.stores.keys import Keys, KeysRefused, load_or_create
from whygate.stores.reader import Stored
from whygate.stores.sealing import Sealing


class Held:
    """Where it is looked up."""

    def __init__(self, config: Path, ledger: Path | None, url: str) -> None:
        self.config = config
        self.gateway = Gateway(url, config) if ledger is None and (url or has_token()) else None
        self.path = None if self.gateway is not None else ledger_path(config, ledger)

    def approvals(self) -> dict[str, Any]:
        if self.gateway is not None:
            return dict(self.gateway.get("approvals"))
        state, now_us = self._state()
        all_ = sorted(state.approvals.values(), key=lambda each: each.answer_by_us)
        return {
            "waiting": [told.approval(each) for each in all_ if each.open(now_us)],
            "usable": [told.approval(each) for each in all_ if each.usable(now_us)],
        }

    def approval(self, identity: str) -> dict[str, Any] | None:
        """With ``shown``, where it can be."""
        if self.gateway is not None:
            found = self.gateway.find("approvals", identity)
            return None if found is None else dict(found)
        state, _ = self._state()
        names = [
            each for each in state.approvals if each.replace("-", "").startswith(identity.replace("-", "").lower())
        ]
        if len(names) != 1:
            return self._over(identity)
        return {**told.approval(state.approvals[names[0]]), "shown": self._shown(names[0])}

    def grants(self) -> list[dict[str, Any]]:
        if self.gateway is not None:
            return list(self.gateway.get("grants")["grants"])
        state, now_us = self._state()
        return [told.grant(each) for each in state.grants.values() if each.usable(now_us)]

    def waivers(self) -> list[dict[str, Any]]:
        if self.gateway is not None:
            return list(self.gateway.get("waivers")["waivers"])
        state, now_us = self._state()
        return [told.waiver(each) for each in state.waivers.values() if now_us < each.until_us]

    def breakglass(self) -> dict[str, Any]:
        if self.gateway is not None:
            return dict(self.gateway.get("breakglass"))
        state, now_us = self._state()
        return {
            "open": [told.breakglass(each) for each in state.breakglass.values() if now_us < each.until_us],
            "reviews": [told.review(each, now_us) for each in state.reviews.values()],
        }

    def agents(self) -> list[dict[str, Any]]:
        if self.gateway is not None:
            return list(self.gateway.get("agents")["agents"])
        state, _ = self._state()
        made = [
            {
                "id": one.id,
                "type": one.type.value,
                "owner": one.owner or "",
                "purpose": one.purpose or "",
                "status": one.status.value,
                "roles": list(one.roles),
                "suspended": one.id in state.suspended,
            }
            for one in load_config(self.config).identities.agents
        ]
        others = sorted(state.suspended - {str(each["id"]) for each in made})
        nothing = {"type": "", "owner": "", "purpose": "", "status": "", "roles": [], "suspended": True}
        return [*made, *({"id": each, **nothing} for each in others)]

    def _state(self) -> tuple[InForce, int]:
        assert self.path is not None  # noqa: S101  one of the two is there
        with reading(self.path) as reader:
            return reader.in_force(), to_us(datetime.datetime.now(datetime.UTC))

    def _over(self, identity: str) -> dict[str, Any] | None:
        """A question that is over, from its records."""
        assert self.path is not None  # noqa: S101  as above
        with reading(self.path) as reader:
            try:
                first = decoded(reader.find(identity))
            except (LookupError, ValueError):
                return None
            if not isinstance(first, ApprovalRecord) or first.asked is None:
                return None
            return {**told.approval(_replayed(first, reader.about(first.id))), "shown": None}

    def _shown(self, identity: str) -> dict[str, Any] | None:
        assert self.path is not None  # noqa: S101  as above
        keys = self.path.parent / f"{self.path.name}.keys"
        with reading(self.path) as reader:
            body = reader.sealed(identity)
        if body is None or not all((keys / f"{name}.key").is_file() for name in Keys.__struct_fields__):
            return None
        try:
            data = Sealing(load_or_create(keys).payload).open(identity, body)
        except (KeysRefused, OSError):
            return None
        return None if data is None else dict(msgspec.json.decode(data)["shown"])


def _replayed(first: ApprovalRecord, after: list[Stored]) -> Any:
    """The approval as its records made it."""
    state = InForce()
    state.apply(first, to_us(first.time))
    last = state.approvals[first.id]
    for record in map(decoded, after):
        if isinstance(record, ApprovalRecord) and record.event != "asked":
            state.apply(record, to_us(record.time))
            known = state.approvals.get(first.id)
            ended = {"approved": "approved", "agreed": "pending"}.get(record.event, record.event)
            last = (
                known
                if known is not None
                else msgspec.convert({**msgspec.to_builtins(last), "state": ended}, type(last))
            )
    return last
