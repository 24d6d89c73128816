"""A secret of its own is put into every input that takes one; afterwards none of them is anywhere in the clear.

Looked through: the logs of all processes, every message of every stream, every column of every table, /metrics, the
traces as they leave, every answer but the one that makes a secret, and the answers of wrong requests. What the
platform must keep it keeps sealed (libs/sealing.py), and a machine still gets what was meant for it.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import secrets
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import asyncpg
import msgspec
import pytest

from libs.eventlog.connection import Connection, open_connection
from libs.eventlog.jetstream import JetStreamLog
from libs.tokens import mint_agent_token
from services.gateway.routes import ROUTES
from tests.journey.platform import Answer, Platform, eventually, platform, wipe

V1 = "/api/v1"
SEEN_S_MAX = 30.0
# Words of a field's name that say it takes a secret; a new such field must be tried below.
SECRET_WORDS = ("secret", "env", "key", "token", "password", "credential", "auth", "onstart", "payment", "reference")
TRIED = {"env", "onstart_cmd", "ssh_key", "secret", "reference"}
# It names a payment and opens nothing: the account's history shows it (seed 000), so it is kept as it is. But no log,
# metric or trace has any business with it.
KEPT = {"a payment's reference"}
# The stand-in cloud remembers what it was given for its machines, as any cloud does: it is outside the platform.
OUTSIDE = ("sandbox",)


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Takes traces as an OpenTelemetry collector does."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            received.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", received
    finally:
        server.shutdown()
        server.server_close()


class Canaries:
    """Secrets by where they were put, and every answer that was given meanwhile."""

    def __init__(self, up: Platform) -> None:
        self.up = up
        self.planted: dict[str, str] = {}
        self.answers: list[tuple[str, Answer]] = []

    def plant(self, where: str) -> str:
        """A new secret for `where`."""
        self.planted[where] = f"canary{secrets.token_hex(12)}"
        return self.planted[where]

    def known(self, where: str, secret: str) -> str:
        """A secret that the platform made."""
        self.planted[where] = secret
        return secret

    def send(
        self, what: str, method: str, path: str, body: Any = None, *, key: bool | str = True, **headers: str
    ) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.up.request(method, path, body, key=key, headers=sent)
        self.answers.append((what, answer))
        return answer

    def made(self, what: str, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """The data of an answer that may show a secret, this once."""
        answer = self.up.request(method, path, body, key=True, headers=headers)
        assert answer.status in (200, 201, 202), f"{what}: {answer.status} {answer.text}"
        return answer.json["data"]

    def found_in(self, text: bytes, *, but: Set[str] = frozenset()) -> list[str]:
        """Where the secrets in a text were put: as they are, in hexadecimal, or in base64."""
        lowered = text.lower()
        return [
            where
            for where, secret in self.planted.items()
            if where not in but
            and (
                any(form in text for form in _base64_forms(secret))
                or secret.encode() in text
                or secret.encode().hex().encode() in lowered
            )
        ]


def _base64_forms(secret: str) -> list[bytes]:
    """The inner part of its base64, whatever stands before it."""
    return [base64.b64encode(b"x" * shift + secret.encode())[4:-4] for shift in range(3)]


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Canaries, list[bytes]]]:
    data_dir = tmp_path_factory.mktemp("canaries") / "data"
    with collector() as (url, traces):
        around = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
            "DUMONT_TRACE_SAMPLE_PPM": "1000000",
            "DUMONT_LOG_LEVEL": "debug",
            "DUMONT_SANDBOX_OPTIONS": '{"boot_delay_ms": {"min": 0, "max": 50}, "outside_demand_ppm": 0}',
        }
        with platform(data_dir, environment=around) as up:
            planted = Canaries(up)
            plant_everywhere(planted)
            yield planted, traces
    wipe(data_dir)


def plant_everywhere(canaries: Canaries) -> None:
    plant_keys(canaries)
    plant_payment(canaries)
    plant_webhooks(canaries)
    plant_instance(canaries)
    plant_wrong(canaries)


def plant_keys(canaries: Canaries) -> None:
    canaries.known("the first API key", canaries.up.api_key)
    key = canaries.made("key", "POST", f"{V1}/api-keys", {"name": "one"})
    canaries.known("an API key", key["key"])
    again = canaries.made("key", "POST", f"{V1}/api-keys", {"name": "two"}, **{"Idempotency-Key": "two"})
    canaries.known("an API key made with an Idempotency-Key", again["key"])
    rotated = canaries.made("rotated", "POST", f"{V1}/api-keys/{key['id']}/rotate", {})
    canaries.known("a rotated API key", rotated["key"])
    canaries.send("list keys", "GET", f"{V1}/api-keys", key=key["key"])
    canaries.send("audit", "GET", f"{V1}/audit", key=rotated["key"])
    canaries.send("revoke", "DELETE", f"{V1}/api-keys/{key['id']}")
    canaries.send("a revoked key", "GET", f"{V1}/account", key=key["key"])


def plant_payment(canaries: Canaries) -> None:
    body = {"amount": 25, "reference": canaries.plant("a payment's reference")}
    for _ in range(2):
        assert canaries.send("pay", "POST", f"{V1}/billing/add-credits", body).status == 201
    canaries.send("pay otherwise", "POST", f"{V1}/billing/add-credits", {**body, "amount": 26})
    canaries.send("history", "GET", f"{V1}/billing/history")


def plant_webhooks(canaries: Canaries) -> None:
    in_path = canaries.plant("a token in the path of a webhook URL")
    url = f"{canaries.up.api_url}/hooks/{in_path}?token={canaries.plant('a token in a webhook URL')}"
    hook = {"name": "one", "url": url, "events": ["*"]}
    secret = canaries.plant("a webhook's secret")
    hook_id = canaries.made("webhook", "POST", f"{V1}/webhooks", {**hook, "secret": secret})["id"]
    canaries.known("a webhook's made secret", canaries.made("webhook", "POST", f"{V1}/webhooks", hook)["secret"])
    path = f"{V1}/webhooks/{hook_id}"
    canaries.send("change", "PUT", path, {"secret": canaries.plant("a webhook's changed secret")})
    moved = f"{canaries.up.api_url}/readyz?{canaries.plant('a changed token in a webhook URL')}"
    assert canaries.send("move", "PUT", path, {"url": moved}).json["data"]["url"].endswith("/readyz?***")
    moved = f"{canaries.up.api_url}/services/{canaries.plant('a changed token in the path of a webhook URL')}"
    seen = canaries.send("move", "PUT", path, {"url": moved}).json["data"]
    assert seen["url"].endswith("/services/***")
    back = canaries.send("send back what was read", "PUT", path, {"name": "two", "url": seen["url"]})
    assert (back.status, back.json["data"]["name"], back.json["data"]["url"]) == (200, "two", seen["url"])
    canaries.made("rotate", "POST", f"{path}/rotate-secret", {"secret": canaries.plant("a webhook's rotated secret")})
    canaries.made("default", "PUT", f"{V1}/webhooks/default-secret", {"secret": canaries.plant("the default secret")})
    for read in ("", "/attempts", "/deliveries"):
        canaries.send("read webhook", "GET", path + read)
    canaries.send("test webhook", "POST", f"{path}/test")


def plant_instance(canaries: Canaries) -> None:
    up = canaries.up
    variable, command = canaries.plant("a variable of a machine"), canaries.plant("a start command")
    wish = {
        "gpu": "RTX 4090",
        "label": "canary",
        "env": {"MODEL_TOKEN": variable},
        "onstart_cmd": f'echo "$MODEL_TOKEN" > told; echo {command} > said',
        "webhook_url": f"{up.api_url}/hooks/{canaries.plant('a token in the path of an instance')}"
        f"?key={canaries.plant('a token in the webhook URL of an instance')}",
    }
    instance_id = canaries.send("create", "POST", f"{V1}/instances", wish, Idempotency_Key="once").json["data"]["id"]
    assert canaries.send("again", "POST", f"{V1}/instances", wish, Idempotency_Key="once").status == 201
    view: dict[str, Any] = {}

    def is_running() -> bool:
        view.update(canaries.send("read", "GET", f"{V1}/instances/{instance_id}").json["data"])
        return view["status"] == "running"

    eventually(is_running, timeout_s=SEEN_S_MAX, what="the instance to run", seen=lambda: view)
    canaries.send("novita", "GET", f"/api/instances/{instance_id}")
    eventually(lambda: machine_was_told(up, variable, command), timeout_s=SEEN_S_MAX, what="the command to have run")
    platform_secret = (up.data_dir / "secrets" / "platform").read_text().strip()
    machine_id = up.machines()[0]["label"].rpartition(".")[2]
    token = mint_agent_token(platform_secret, machine_id=machine_id, instance_id=instance_id, generation=1)
    canaries.known("an agent's token", token)
    heartbeat = canaries.send("heartbeat", "POST", f"{V1}/agent/status", {"instance_id": instance_id}, key=token)
    assert heartbeat.status == 200, heartbeat.text
    for name in ("platform", "nats", "postgres", "sandbox"):
        canaries.known(f"secrets/{name}", (up.data_dir / "secrets" / name).read_text().strip())
    canaries.send("events", "GET", f"{V1}/events?limit=100")
    canaries.send("delete", "DELETE", f"{V1}/instances/{instance_id}")


def machine_was_told(up: Platform, variable: str, command: str) -> bool:
    """Sealing is of no use when the machine does not get its variables."""
    folder = (up.data_dir / "sandbox" / "machines").resolve()
    told = [path.read_text().strip() for path in folder.glob("*/workspace/told")]
    said = [path.read_text().strip() for path in folder.glob("*/workspace/said")]
    return variable in told and command in said


def plant_wrong(canaries: Canaries) -> None:
    """In requests that are refused: the answer must not repeat what may be a secret."""
    private = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{canaries.plant('a private key by mistake')}"
    hook = {"name": "x", "url": "https://example.com", "events": ["*"]}
    novita = {"name": "my-gpu-instance", "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"}
    wrong: list[tuple[str, str, Any]] = [
        ("POST", f"{V1}/instances", {"gpu": "RTX 4090", "ssh_key": private}),
        ("POST", f"{V1}/instances", {"gpu": "RTX 4090", "env": [canaries.plant("variables of a wrong shape")]}),
        ("POST", f"{V1}/instances", {"gpu": "RTX 4090", "env": canaries.plant("variables that are a text")}),
        ("POST", f"{V1}/instances", {"gpu": 7, "onstart_cmd": canaries.plant("a command beside a mistake")}),
        ("PUT", f"{V1}/webhooks/default-secret", {"secret": canaries.plant("a secret with a blank") + " x"}),
        ("PUT", f"{V1}/webhooks/default-secret", {"secret": [canaries.plant("a secret of a wrong shape")]}),
        ("POST", f"{V1}/webhooks", {**hook, "url": f"ftp://u:{canaries.plant('a password in a URL')}@h/"}),
        ("POST", f"{V1}/webhooks", {**hook, "url": f"https://u:{canaries.plant('a password in a good URL')}@h.com/"}),
        ("POST", f"{V1}/instances", {"gpu": "RTX 4090", "webhook_url": f"https://{canaries.plant('a user')}@h.com/"}),
        ("POST", "/api/instances", {**novita, "webhookUrl": f"https://{canaries.plant('a novita user')}@h.com/"}),
        ("POST", f"{V1}/webhooks", {**hook, "url": f"https://h.com/***/{canaries.plant('a token beside stars')}"}),
        ("POST", f"{V1}/webhooks", {**hook, "name": 1, "secret": canaries.plant("a secret beside a mistake")}),
    ]  # fmt: skip
    for method, path, body in wrong:
        answer = canaries.send(f"wrong {method} {path}", method, path, body)
        assert answer.status == 400, answer.text
    for where, key in (
        ("an unknown key", "dumont_sk_" + canaries.plant("an unknown key")),
        ("no key at all", canaries.plant("no key at all")),
        ("a forged agent token", f"dumont_agent_{canaries.plant('a forged agent token')}"),
    ):
        assert canaries.send(where, "GET", f"{V1}/instances", key=key).status == 401
        assert canaries.send(where, "GET", f"{V1}/instances", key=False, X_API_Key=key).status == 401
        assert canaries.send(where, "POST", f"{V1}/agent/status", {"instance_id": "inst_1"}, key=key).status == 401


def test_every_field_that_takes_a_secret_is_tried() -> None:
    names = {
        field.encode_name
        for route in ROUTES
        if route.body is not None
        for field in msgspec.structs.fields(route.body)
        if any(word in field.encode_name.lower() for word in SECRET_WORDS)
    }
    assert names <= TRIED, f"plant a canary in {sorted(names - TRIED)}, then add it to TRIED"


def test_no_log_tells_a_secret(canaries: tuple[Canaries, list[bytes]]) -> None:
    planted, _ = canaries
    logs = sorted(planted.up.data_dir.glob("logs/*"))
    assert len(logs) >= 7
    told = {path.name: planted.found_in(path.read_bytes()) for path in logs}
    assert sum(path.stat().st_size for path in logs) > 10_000
    assert not any(told.values()), told


def test_no_stream_holds_a_secret(canaries: tuple[Canaries, list[bytes]]) -> None:
    planted, _ = canaries
    messages = asyncio.run(every_message(planted.up.nats_url))
    assert {stream for stream, _, _ in messages} >= {
        "EVT_GATEWAY",
        "EVT_INSTANCE",
        "EVT_WEBHOOK_DISPATCH",
        "EVT_BILLING",
        "PUB",
    }
    told = {
        (stream, subject): found for stream, subject, data in messages if (found := planted.found_in(data, but=KEPT))
    }
    assert not told, told


def test_no_column_holds_a_secret(canaries: tuple[Canaries, list[bytes]]) -> None:
    planted, _ = canaries
    rows = asyncio.run(every_row(planted.up.postgres_url))
    assert len({table for table, _ in rows}) >= 8
    told = {table: found for table, text in rows if (found := planted.found_in(text.encode(), but=KEPT))}
    assert not told, told


def test_no_answer_metric_or_trace_tells_a_secret(canaries: tuple[Canaries, list[bytes]]) -> None:
    planted, traces = canaries
    for path in ("/metrics", "/readyz", "/health", "/api/metrics", "/api/cache/stats", "/openapi.json"):
        planted.send(path, "GET", path)
    told = {
        what: found
        for what, answer in planted.answers
        if (found := planted.found_in(f"{answer.headers} {answer.text}".encode(), but=KEPT))
    }
    assert not told, told
    eventually(lambda: any(b"/api/v1/instances" in trace for trace in traces), timeout_s=SEEN_S_MAX, what="traces")
    found = [planted.found_in(trace) for trace in tuple(traces)]
    assert not any(found), found


def test_what_the_operator_keeps_is_for_the_operator_alone(canaries: tuple[Canaries, list[bytes]]) -> None:
    """The first key lies in state.json for the command line, the servers' passwords in secrets/."""
    planted, _ = canaries
    folder = planted.up.data_dir
    for path in (folder, folder / "secrets", folder / "state.json", *(folder / "secrets").iterdir()):
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"


async def every_message(url: str) -> list[tuple[str, str, bytes]]:
    """(stream, subject, headers and data) of all streams of the server."""
    connection = await open_connection(url, name="canaries")
    try:
        log, found = JetStreamLog(connection), []
        for stream in await stream_names(connection):
            last = await log.last_seq(stream)
            if not last:
                continue
            async for batch in log.follow(stream, after_seq=0):
                found += [(stream, message.subject, message.headers + message.data) for message in batch]
                if batch[-1].seq >= last:
                    break
        return found
    finally:
        await connection.close()


async def stream_names(connection: Connection) -> list[str]:
    data, _ = await connection.call("$JS.API.STREAM.NAMES", b"", timeout_s=SEEN_S_MAX)
    return json.loads(data)["streams"]


async def every_row(url: str) -> list[tuple[str, str]]:
    """(table, the row as text) of every table that is ours."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "select table_schema, table_name from information_schema.tables"
            " where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'"
        )
        found: list[tuple[str, str]] = []
        for schema, table in tables:
            quoted = f'"{schema}"."{table}"'
            found += [(quoted, row[0]) for row in await connection.fetch(f"select t::text from {quoted} t")]
        return found
    finally:
        await connection.close()
