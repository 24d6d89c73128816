"""The seeds' receivers as whole programs, and others' verifiers, on what the platform really sends.

`seeds/002_08…`, `004_04…` and `004_05…` are code blocks of the seeds, character for character; only the port 3001 is
exchanged. Seed 002's shows a handler without its application, so the lines around it are added.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import urllib.error
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from libs.embedded.files import pick_port
from tests.journey.node_programs import Node
from tests.journey.platform import Platform, ask, eventually

SEEDS = Path(__file__).parent / "seeds"
HEARD_MAX_S = 30.0
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TEXT_SECRET = "secret-as-the-seeds-have-it"
EXPRESS_OF_SEED_002 = ("const express = require('express');\nconst app = express();\napp.use(express.json());\n",
                       "\napp.listen(3001);\n")  # fmt: skip
VERIFY = """
const { Webhook } = require('standardwebhooks');
const [secret, requests] = JSON.parse(require('fs').readFileSync(0));
for (const { headers, body } of requests) {
  console.log(new Webhook(secret).verify(body, headers).id);
}
try { new Webhook(secret).verify(requests[0].body + ' ', requests[0].headers); console.log('TAKEN'); } catch { }
"""


class Lines:
    """What a program prints, as it does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def end(self) -> None:
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()


class Program(Lines):
    """A receiver that runs."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        super().__init__(process)
        self.url = f"http://127.0.0.1:{port}/webhook"

    def is_listening(self) -> bool:
        assert self.process.poll() is None, "".join(self.lines)
        try:
            return ask("GET", self.url, None, {}).status in (404, 405)
        except (OSError, urllib.error.URLError):
            return False


@contextmanager
def program(process: subprocess.Popen[str], port: int) -> Iterator[Program]:
    running = Program(process, port)
    try:
        eventually(running.is_listening, timeout_s=HEARD_MAX_S, what="the receiver", seen=lambda: running.lines)
        yield running
    finally:
        running.end()


@contextmanager
def subscribed(up: Platform, url: str, secret: str) -> Iterator[str]:
    """An endpoint of the account; its path in the API."""
    body = {"name": "receiver", "url": url, "events": ["instance.*"], "secret": secret}
    made = up.request("POST", "/api/v1/webhooks", body, key=True)
    assert made.status == 201, made.text
    at = f"/api/v1/webhooks/{made.json['data']['id']}"
    try:
        yield at
    finally:
        assert up.request("DELETE", at, {}, key=True).status == 200


def accepts(up: Platform, running: Program, secret: str, words: Sequence[str]) -> None:
    """Every delivery of one instance is answered with 200, and the program prints what its seed says."""
    with subscribed(up, running.url, secret) as at:
        ready = up.create_ready()
        ssh = ready["connectionDetails"]["ssh"]
        eventually(
            lambda: all(word in "".join(running.lines) for word in (*words, ready["id"], ssh)),
            timeout_s=HEARD_MAX_S, what="the connection details", seen=lambda: running.lines,
        )  # fmt: skip
        attempts = up.request("GET", f"{at}/attempts?limit=100", key=True).json["data"]
        assert {attempt["status_code"] for attempt in attempts} <= {200}, attempts


def refuses(running: Program) -> None:
    forged = ask("POST", running.url, {"instanceId": "x", "status": "ready", "timestamp": "t", "data": {}}, {})
    assert forged.status == 401


def test_the_flask_receiver_of_seed_004_prints_the_connection_details(up: Platform, tmp_path: Path) -> None:
    port = pick_port()
    path = tmp_path / "receiver.py"
    path.write_text((SEEDS / "004_05_flask_webhook_handler.py.txt").read_text().replace("3001", str(port)))
    environment = {**os.environ, "WEBHOOK_SECRET": TEXT_SECRET, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, str(path)], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with program(process, port) as running:
        accepts(up, running, TEXT_SECRET, ["is now ready", "Instance ready! Connection: "])
        refuses(running)


def test_the_express_receiver_of_seed_004_prints_the_connection_details(up: Platform, node: Node) -> None:
    port = pick_port()
    text = (SEEDS / "004_04_express_webhook_handler.js").read_text().replace("3001", str(port))
    with program(node.start(node.write("seed004.cjs", text), {"WEBHOOK_SECRET": TEXT_SECRET}), port) as running:
        accepts(up, running, TEXT_SECRET, ["is now ready", "Instance ready! Connection details: {"])
        refuses(running)


def test_the_express_receiver_of_seed_002_prints_the_connection_details(up: Platform, node: Node) -> None:
    port = pick_port()
    before, after = EXPRESS_OF_SEED_002
    text = before + (SEEDS / "002_08_express_webhook_handler.js").read_text() + after.replace("3001", str(port))
    with program(node.start(node.write("seed002.cjs", text), {}), port) as running:
        accepts(up, running, TEXT_SECRET, ["is now ready", "Connection details: {"])


@pytest.fixture(scope="module")
def requests(up: Platform) -> list[tuple[dict[str, str], str]]:
    """What an endpoint was sent for one instance: headers and body."""
    got: list[tuple[dict[str, str], str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with subscribed(up, f"http://127.0.0.1:{server.server_port}/", SECRET):
            up.create_ready()
            eventually(lambda: any('"instance.ready"' in body for _, body in got), timeout_s=HEARD_MAX_S, what="ready")
    finally:
        server.shutdown()
        server.server_close()
    return got


def test_standardwebhooks_for_python_verifies_every_request(requests: list[tuple[dict[str, str], str]]) -> None:
    for headers, body in requests:
        assert Webhook(SECRET).verify(body, headers)["id"] == json.loads(body)["id"]
    with pytest.raises(Exception, match="signature"):
        Webhook(SECRET).verify(requests[0][1] + " ", requests[0][0])


def test_standardwebhooks_for_javascript_verifies_every_request(
    requests: list[tuple[dict[str, str], str]], node: Node
) -> None:
    asked = json.dumps([SECRET, [{"headers": headers, "body": body} for headers, body in requests]])
    done = subprocess.run(
        [node.node, str(node.write("verify.cjs", VERIFY))], input=asked, cwd=node.folder, capture_output=True,
        text=True, check=False, timeout=HEARD_MAX_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [json.loads(body)["id"] for _, body in requests]
