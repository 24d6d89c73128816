"""Webhooks as customers meet them: a URL given with an instance, endpoints of an account, the seeds' receivers."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.journey.platform import Platform, eventually

SECRET = "journey-secret"
FLOW = ["creating", "starting", "running", "health_checking", "ready"]


class Hook:
    """A receiver as seed 004 writes one: checks the signature when it has a secret, remembers what it was told."""

    def __init__(self, secret: str = "") -> None:
        self.secret = secret
        self.told: list[dict[str, Any]] = []
        self.refused = 0
        self.url = ""

    def meet(self, payload: bytes, signature: str | None) -> int:
        if self.secret:
            expected = hmac.new(self.secret.encode(), payload, hashlib.sha256).hexdigest()
            if f"sha256={expected}" != signature:
                self.refused += 1
                return 401
        self.told.append(json.loads(payload))
        return 200

    def of(self, instance_id: str) -> list[dict[str, Any]]:
        return [each for each in self.told if each.get("instanceId") == instance_id]


@contextmanager
def hook(secret: str = "") -> Iterator[Hook]:
    made = Hook(secret)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            payload = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(made.meet(payload, self.headers.get("X-Signature-SHA256")))
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}/webhook"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


def create(up: Platform, name: str, **fields: Any) -> str:
    body = {"name": name, "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter", **fields}
    answer = up.request("POST", "/api/instances", body)
    assert answer.status == 201, answer.text
    return answer.json["instanceId"]


def test_an_instance_tells_its_webhook_each_status_until_ready_with_connection_details(up: Platform) -> None:
    with hook() as heard:
        instance_id = create(up, "hooked", webhookUrl=heard.url)
        up.wait_for_status(instance_id, "ready")
        eventually(
            lambda: any(each["status"] == "ready" for each in heard.of(instance_id)),
            timeout_s=10,
            what="the ready webhook",
            seen=lambda: heard.told,
        )
        statuses = [each["status"] for each in heard.of(instance_id)]
        assert statuses == [status for status in FLOW if status in statuses]
        assert statuses[-1] == "ready"
        ready = heard.of(instance_id)[-1]
        shown = up.instance(instance_id)["connectionDetails"]
        told = ready["data"]["connectionDetails"]
        assert told == ready["instance"]["connectionDetails"]
        assert (told["jupyter"], told["webTerminal"]) == (shown["jupyter"], shown["webTerminal"])
        assert told["ssh"] == shown["ssh"]
        assert up.request("DELETE", f"/api/v1/instances/{instance_id}", key=True).status == 200
        eventually(
            lambda: heard.of(instance_id)[-1]["status"] == "deleted", timeout_s=15, what="the deleted webhook",
            seen=lambda: heard.told,
        )  # fmt: skip


def test_an_accounts_webhook_hears_signed_events_and_shows_its_attempts(up: Platform) -> None:
    with hook(SECRET) as heard:
        body = {"name": "mine", "url": heard.url, "events": ["instance.*"], "secret": SECRET}
        made = up.request("POST", "/api/v1/webhooks", body, key=True)
        assert made.status == 201, made.text
        webhook = made.json["data"]
        at = f"/api/v1/webhooks/{webhook['id']}"
        assert webhook["secret"] == SECRET
        assert up.request("GET", at, key=True).json["data"]["secret"] == "***"
        tested = up.request("POST", f"{at}/test", {}, key=True).json["data"]
        assert (tested["status"], tested["status_code"]) == ("success", 200)
        instance_id = create(up, "watched")
        eventually(
            lambda: any(each["event"] == "instance.ready" for each in heard.of(instance_id)), timeout_s=30,
            what="instance.ready", seen=lambda: heard.told,
        )  # fmt: skip
        assert not heard.refused
        created = next(each for each in heard.of(instance_id) if each["event"] == "instance.created")
        assert created["data"]["instance_id"] == instance_id

        def attempts() -> Any:
            return up.request("GET", f"{at}/attempts", key=True).json

        eventually(lambda: attempts()["meta"]["total"] >= 5, timeout_s=5, what="attempts in the rows", seen=attempts)
        newest = attempts()["data"][0]
        told = len(heard.told)
        assert up.request("POST", f"{at}/attempts/{newest['id']}/resend", {}, key=True).status == 202
        eventually(lambda: len(heard.told) > told, timeout_s=10, what="the resend")
        assert json.loads(newest["payload"]) in heard.told[:told]
        assert up.request("DELETE", at, {}, key=True).status == 200
        assert up.request("GET", at, key=True).status == 404


def test_urls_that_lead_inside_and_unknown_events_are_refused_with_a_reason(up: Platform) -> None:
    for url in ("http://169.254.169.254/latest", "http://10.0.0.1/x", "http://user:pw@example.com/"):
        body = {"name": "bad", "url": url, "events": ["*"]}
        refused = up.request("POST", "/api/v1/webhooks", body, key=True)
        assert (refused.status, refused.json["error"]["code"]) == (400, "WEBHOOK_URL_REFUSED"), refused.text
    body = {"name": "bad", "url": "https://example.com/", "events": ["instance.exploded"]}
    assert up.request("POST", "/api/v1/webhooks", body, key=True).json["error"]["code"] == "VALIDATION_ERROR"
