"""A whole platform for a test: `./dumont up --json` on picked ports in a temporary folder, stopped with everything it
started."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.instance.providers.labels import label_of, platform_id

ROOT = Path(__file__).parents[2]
STOP_MAX_S = 30.0
# The seeds' snippets name a receiver on the internet: nothing of a test goes there.
INSIDE_ONLY = {"DUMONT_WEBHOOK_PUBLIC": "false"}
VERB_MAX_S = 60.0
REQUEST_MAX_S = 30.0
POLL_S = 0.05
# A journey cannot wait as long as an operator: differences are looked for every second, an orphan lives a few more.
PACE = {"DUMONT_PROVIDER_POLL_S": "1", "DUMONT_ORPHAN_SEEN_S": "2", "DUMONT_ORPHAN_GRACE_S": "2"}
# Quick heartbeats, with which much begins; failovers may follow each other; every GPU is to be had.
BRISK = {
    "DUMONT_FAILOVER_SPACING_S": "0",
    "DUMONT_HEARTBEAT_S": "1",
    "DUMONT_SANDBOX_OPTIONS": '{"boot_delay_ms": {"min": 0, "max": 50}, "outside_demand_ppm": 0}',
}


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: status, lower-cased headers, body as text and (when it is JSON) decoded."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Platform:
    """A running platform, as `up --json` describes it."""

    process: subprocess.Popen[str]
    api_url: str
    api_key: str
    nats_url: str
    postgres_url: str
    data_dir: Path
    pids: dict[str, int]

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        key: bool | str = False,
    ) -> Answer:
        """One request; `body` is JSON unless it is bytes already. `key`: True is the default account's, or any text."""
        sent = dict(headers or {})
        if key:
            sent["Authorization"] = f"Bearer {self.api_key if key is True else key}"
        return ask(method, self.api_url + path, body, sent)

    def cloud(self, method: str, path: str, body: Any = None) -> Any:
        """What the sandbox cloud itself answers, decoded: the witness of what really runs."""
        secret = (self.data_dir / "secrets" / "sandbox").read_text().strip()
        answer = ask(method, self.state()["sandbox_url"] + path, body, {"Authorization": f"Bearer {secret}"})
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.text}"
        return json.loads(answer.text) if answer.text else None

    def machines(self) -> list[dict[str, Any]]:
        """Every machine the sandbox cloud has."""
        return self.cloud("GET", "/v1/machines")["machines"]

    def label_of(self, machine_id: str) -> str:
        """What the cloud knows a machine of this platform by."""
        secret = (self.data_dir / "secrets" / "platform").read_text().strip()
        return label_of(platform_id(secret), machine_id)

    def state(self) -> dict[str, Any]:
        return json.loads((self.data_dir / "state.json").read_text())

    def status_pids(self) -> dict[str, int]:
        """The processes as they are now (services are restarted under new pids)."""
        return {name: member["pid"] for name, member in self.state()["members"].items()}

    def verb(self, *arguments: str, status: int = 0) -> str:
        """Run one verb of `./dumont` against this platform; its standard output."""
        done = dumont(self.data_dir, *arguments)
        assert done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def create(self, name: str = "", **more: Any) -> str:
        """A new instance of the Novita dialect; its id."""
        body = {"name": name or unique("made"), "productName": "RTX 4090 24GB", "templateId": "pytorch-jupyter"}
        answer = self.request("POST", "/api/instances", {**body, **more})
        assert answer.status == 201, answer.text
        return answer.json["instanceId"]

    def create_ready(self, **more: Any) -> Any:
        """A new instance, once it is ready."""
        return self.wait_for_status(self.create(**more), "ready")

    def instance(self, instance_id: str) -> Any:
        return self.request("GET", f"/api/instances/{instance_id}").json

    def wait_for_status(self, instance_id: str, *statuses: str, timeout_s: float = 30.0) -> Any:
        """The instance, once its status is one of these."""
        last: Any = None

        def reached() -> bool:
            nonlocal last
            last = self.instance(instance_id)
            return last.get("status") in statuses

        eventually(reached, timeout_s=timeout_s, what=f"{instance_id} to be {statuses}", seen=lambda: last)
        return last


def ask(method: str, url: str, body: Any, headers: dict[str, str]) -> Answer:
    """One HTTP request without surprises: no proxy, no redirect of errors into exceptions."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    sent = dict(headers)
    if data is not None:
        sent.setdefault("Content-Type", "application/json")
    request = urllib.request.Request(url, data=data, headers=sent, method=method)
    try:
        with urllib.request.urlopen(request, timeout=REQUEST_MAX_S) as response:
            return Answer(response.status, _lower(response.headers.items()), response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, _lower(error.headers.items()), error.read().decode())


def unique(prefix: str) -> str:
    """A name no other journey uses: the platform is shared."""
    return f"{prefix}-{secrets.token_hex(4)}"


def surroundings(more: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of a platform under test: nothing of ours that would configure it, and a brisk pace."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("DUMONT_")}
    return {**clean, "PYTHONPATH": str(ROOT), **INSIDE_ONLY, **PACE, **(more or {})}


def dumont(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments, "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        check=False,
        timeout=VERB_MAX_S,
        cwd=ROOT,
        env=surroundings(),
    )


def _lower(items: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in items}


def eventually(
    condition: Callable[[], bool], *, timeout_s: float, what: str, seen: Callable[[], Any] = lambda: None
) -> None:
    """Wait until `condition` holds; fail saying what was waited for and what was seen last."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}; last seen: {seen()}"
        time.sleep(POLL_S)


@contextmanager
def platform(data_dir: Path, *flags: str, environment: dict[str, str] | None = None) -> Iterator[Platform]:
    """Start, yield, and stop with SIGTERM."""
    command = [sys.executable, "-m", "services.cli", "up", "--json", "--port", "0", "--data-dir", str(data_dir), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=surroundings(environment))
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"`up` ended with {process.wait(STOP_MAX_S)} before it was ready; see {data_dir}/logs"
        facts = json.loads(line)
        yield Platform(
            process,
            facts["api_url"],
            facts["api_key"],
            facts["nats_url"],
            facts["postgres_url"],
            Path(facts["data_dir"]),
            facts["pids"],
        )
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(STOP_MAX_S)
        process.stdout.close()


@contextmanager
def passing_platform(*flags: str, environment: dict[str, str] | None = None) -> Iterator[Platform]:
    """One whose data is removed when it has stopped, machines' directories included."""
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        try:
            with platform(data_dir, *flags, environment=environment) as up:
                yield up
        finally:
            wipe(data_dir)


def machines_directory(data_dir: Path) -> Path:
    """Where the machines' directories really are: beside the data when their users could not enter it."""
    return (data_dir / "sandbox" / "machines").resolve()


def wipe(data_dir: Path) -> None:
    """Remove a stopped platform's data, and what lies beside it."""
    shutil.rmtree(machines_directory(data_dir), ignore_errors=True)
    shutil.rmtree(data_dir, ignore_errors=True)
