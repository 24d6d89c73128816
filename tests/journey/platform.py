"""A whole platform for a test: `./dumont up --json` on picked ports in a temporary folder, stopped with everything it
started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
START_MAX_S = 60.0
STOP_MAX_S = 30.0
POLL_S = 0.05


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
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, key: bool = False
    ) -> Answer:
        """One request; `body` is JSON unless it is bytes already. `key` adds the default account's API key."""
        sent = dict(headers or {})
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        if key:
            sent["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(self.api_url + path, data=data, headers=sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Answer(response.status, _lower(response.headers.items()), response.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _lower(error.headers.items()), error.read().decode())

    def status_pids(self) -> dict[str, int]:
        """The processes as they are now (services are restarted under new pids)."""
        state = json.loads((self.data_dir / "state.json").read_text())
        return dict(state["pids"])

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
    """Start, yield, and stop with SIGTERM; asserts that nothing it started is left."""
    command = [sys.executable, "-m", "services.cli", "up", "--json", "--port", "0", "--data-dir", str(data_dir), *flags]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
    )
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
