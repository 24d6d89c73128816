"""Two accounts on a platform of their own, keys of every kind, and things that belong to the first account.

Used by `test_auth_matrix.py` and `existence.py`. The machines are virtual: what is asked is who may ask, not what runs.
"""

from __future__ import annotations

import http.client
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec.structs import asdict

from libs.embedded.state import read_state
from libs.tokens import mint_agent_token
from proto.gateway.commands import IssueKey
from proto.gateway.words import DEFAULT_ACCOUNT, KEY_PREFIX, fingerprint
from services.cli import operator
from services.gateway.auth import AGENT
from services.gateway.routing import Route
from tests.journey.access_rows import Row
from tests.journey.platform import Answer, Platform, eventually, platform

STRANGER = "acct_stranger"
READY_S_MAX = 30.0
REQUEST_S_MAX = 30.0
# Everything needs a key, as in production; and the matrix is one long series of failed logins from one address.
AROUND = {
    "DUMONT_MODE": "production",
    "DUMONT_LIMITS": json.dumps({"address": {"failed_login": {"requests": 1_000_000, "period_s": 60}}}),
    "DUMONT_FAILOVER_SPACING_S": "0",
    "DUMONT_WELCOME_CREDIT_USD": "1000",
    "DUMONT_SANDBOX_OPTIONS": json.dumps({"boot_delay_ms": {"min": 0, "max": 0}, "outside_demand_ppm": 0}),
}
CREDENTIALS = ("none", "malformed", "unknown", "expired", "revoked", "wrong scope", "other account", "right")
NOT_KEYS = {"none": "", "malformed": "not-a-key", "unknown": KEY_PREFIX + "u" * 43}


@contextmanager
def access_platform(data_dir: Path) -> Iterator[Access]:
    with platform(data_dir, "--sandbox", "virtual", environment=AROUND) as up:
        yield Access(up)


@dataclass
class Access:
    """Asks as anybody. `things` are made when first named."""

    up: Platform
    things: dict[str, str] = field(default_factory=dict[str, str])
    keys: dict[str, str] = field(default_factory=dict[str, str])

    def ask(self, method: str, path: str, key: str, body: Any = None) -> Answer:
        """One request on a connection of its own. Of an answer that never ends only the head is read."""
        address = urlsplit(self.up.api_url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=REQUEST_S_MAX)
        headers = {"Content-Type": "application/json", "Accept-Language": "en"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            known = {name.lower(): value for name, value in response.getheaders()}
            is_endless = known.get("content-type", "").startswith("text/event-stream")
            return Answer(response.status, known, "" if is_endless else response.read().decode())
        finally:
            connection.close()

    def target(self, method: str, row: Row, template: str) -> tuple[str, str, Any]:
        """Method, path and body of a right request."""
        path = template
        for name, value in row.path.items():
            path = path.replace(f"{{{name}}}", self.thing(value))
        return method, path + row.query, self._filled(row.body)

    def named(self, row: Row) -> list[str]:
        """The things of ours that a row names."""
        found = [value for value in row.path.values() if value.startswith("$")]
        if isinstance(row.body, dict):
            found += [value for value in row.body.values() if isinstance(value, str) and value.startswith("$")]
        return [self.thing(value) for value in found]

    # Credentials --------------------------------------------------------------------------------------------------

    def credential(self, kind: str, route: Route, row: Row) -> str:
        """The secret to ask with, empty for none."""
        if kind in NOT_KEYS:
            return NOT_KEYS[kind]
        if route.scope == AGENT and kind in ("other account", "right"):
            return self._agent_token(row.body["instance_id"], is_ours=kind == "right")
        if kind == "wrong scope":
            return self._key("offers:read" if route.scope != "offers:read" else "machines:read")
        if kind == "other account":
            return self._key("all", account=STRANGER)
        if kind == "right":
            return self._key(route.scope or "all")
        return self._dead(kind)

    def _key(self, scope: str, *, account: str = DEFAULT_ACCOUNT) -> str:
        name = f"{account} {scope}"
        if name not in self.keys:
            if account == STRANGER:
                self.up.verb("accounts", "open", STRANGER, "--plan", "operator")
            self.keys[name] = self._issued(scope, account=account)[1]
        return self.keys[name]

    def _dead(self, kind: str) -> str:
        if kind not in self.keys:
            soon = datetime.now(UTC) + timedelta(seconds=1)
            key_id, key = self._issued("all", expires_at=soon if kind == "expired" else None)
            if kind == "revoked":
                assert self.ask("DELETE", f"/api/v1/api-keys/{key_id}", self.up.api_key).status == 200
            self.keys[kind] = key
            ends = time.monotonic() + READY_S_MAX
            while self.ask("GET", "/api/v1/account", key).status != 401:
                assert time.monotonic() < ends, f"the {kind} key still works"
                time.sleep(0.05)
        return self.keys[kind]

    def _issued(
        self, scope: str, *, account: str = DEFAULT_ACCOUNT, expires_at: datetime | None = None
    ) -> tuple[str, str]:
        key, key_id = KEY_PREFIX + secrets.token_urlsafe(32), operator.fresh_id("key")
        wish = IssueKey(
            now=operator.now(), key_id=key_id, account_id=account, name="matrix", **asdict(fingerprint(key)),
            scopes=(scope,), expires_at=expires_at,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        state = read_state(self.up.data_dir)
        assert state is not None
        operator.carry_out(state, wish)
        return key_id, key

    def _agent_token(self, instance: str, *, is_ours: bool) -> str:
        instance_id = self.thing(instance if is_ours else "$instance#somebody-elses")
        view = self._data("GET", f"/api/v1/instances/{instance_id}")
        rented = view["provider_instance_id"]
        machine_id = next(
            found["label"].rpartition(".")[2] for found in self.up.machines() if found["machine_id"] == rented
        )
        secret = (self.up.data_dir / "secrets" / "platform").read_text().strip()
        return mint_agent_token(secret, machine_id=machine_id, instance_id=instance_id, generation=1)

    # Things -------------------------------------------------------------------------------------------------------

    def thing(self, value: str) -> str:
        """The id (or name) behind `$kind#name`; anything else is itself."""
        if not value.startswith("$"):
            return value
        if value not in self.things:
            kind, _, name = value[1:].partition("#")
            self.things[value] = getattr(self, "_make_" + kind.replace("-", "_"))(name)
        return self.things[value]

    def _filled(self, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {name: self.thing(value) if isinstance(value, str) else value for name, value in body.items()}

    def _make_instance(self, name: str) -> str:
        made = self._data("POST", "/api/v1/instances", {"gpu": "RTX 4090", "label": name})
        self._until_status(made["id"], "running")
        return made["id"]

    def _make_stopped(self, name: str) -> str:
        instance_id = self._make_instance(name)
        self._data("POST", f"/api/v1/instances/{instance_id}/stop")
        self._until_status(instance_id, "stopped")
        return instance_id

    def _make_instance_name(self, name: str) -> str:
        self._make_instance(name)
        return name

    def _make_stopped_name(self, name: str) -> str:
        self._make_stopped(name)
        return name

    def _make_synced(self, name: str) -> str:
        """An instance that has a CPU standby."""
        instance_id = self._make_instance(name)
        self._data("POST", f"/api/v1/standby/provision/{instance_id}", {})
        return instance_id

    def _make_key(self, name: str) -> str:
        return self._data("POST", "/api/v1/api-keys", {"name": name, "scopes": ["keys:write"]})["id"]

    def _make_webhook(self, name: str) -> str:
        body = {"name": name, "url": "https://example.com/hook", "events": ["instance.*"]}
        return self._data("POST", "/api/v1/webhooks", body)["id"]

    def _make_attempt(self, name: str) -> str:
        webhook_id = self.thing("$webhook#1")
        self._make_instance(name)  # something to tell; that nobody receives it makes no difference
        found: list[Any] = []

        def is_there() -> bool:
            found[:] = self._data("GET", f"/api/v1/webhooks/{webhook_id}/attempts")
            return bool(found)

        eventually(is_there, timeout_s=READY_S_MAX, what="an attempt to deliver an event")
        return found[0]["id"]

    def _make_failover(self, name: str) -> str:
        instance_id = self._make_instance(name)
        return self._data("POST", "/api/v1/failover/execute", {"machine_id": instance_id})["failover_id"]

    def _make_snapshot(self, name: str) -> str:
        del name
        return self._data("POST", f"/api/v1/instances/{self.thing('$instance#agent')}/snapshots")["snapshot_id"]

    def _make_avoided(self, name: str) -> str:
        host = f"host-{name}"
        self._data(
            "POST", "/api/v1/machines/history/blacklist", {"provider": "sandbox", "machine_id": host, "reason": "x"}
        )
        return host

    def _until_status(self, instance_id: str, wanted: str) -> None:
        seen: list[str] = []

        def reached() -> bool:
            seen[:] = [self._data("GET", f"/api/v1/instances/{instance_id}")["status"]]
            return seen == [wanted]

        eventually(reached, timeout_s=READY_S_MAX, what=f"{instance_id} to be {wanted}", seen=lambda: seen)

    def _data(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.ask(method, path, self.up.api_key, body)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.text}"
        return answer.json["data"]
