"""Three ways to hear the same events: a webhook, a program fed by `webhooks listen`, the list. Same ids, same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.journey.platform import ROOT, Platform, eventually, surroundings
from tests.journey.test_webhooks import SECRET, Hook, create, hook

HEARD_MAX_S = 30.0


@contextmanager
def verb(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A verb that runs until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services.cli", *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env=surroundings(),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def line_of(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def listed(up: Platform, query: str = "") -> list[dict[str, Any]]:
    """Every event of the account, page after page."""
    found: list[dict[str, Any]] = []
    after, has_more = "start", True
    while has_more:
        answer = up.request("GET", f"/api/v1/events?limit=100&after={after}{query}", key=True).json["data"]
        found += answer["events"]
        after, has_more = answer["next_after"], answer["has_more"]
    return found


def heard_ready(heard: Hook, instance_id: str) -> bool:
    return any(each["event"] == "instance.ready" for each in heard.of(instance_id))


def test_a_local_program_hears_what_a_webhook_hears_signed(up: Platform, tmp_path: Path) -> None:
    nowhere = str(tmp_path)  # an address and a key are enough
    target = (
        "--api",
        up.api_url,
        "--key",
        up.api_key,
        "--data-dir",
        nowhere,
        "--json",
        "--secret",
        SECRET,
        "--after",
        "start",
    )
    with hook(SECRET) as local, hook(SECRET) as pushed:
        body = {"name": "mine", "url": pushed.url, "events": ["instance.*"], "secret": SECRET}
        webhook_id = up.request("POST", "/api/v1/webhooks", body, key=True).json["data"]["id"]
        with verb("webhooks", "listen", "--forward-to", local.url, "--events", "instance.*", *target) as listening:
            assert line_of(listening)["secret"] == SECRET
            first = create(up, "listened-to")
            eventually(lambda: bool(local.told), timeout_s=HEARD_MAX_S, what="an event")
            told = line_of(listening)
            assert (told["status_code"], told["type"]) == (200, local.told[0]["type"])
            last = create(up, "listened-to-as-well")
            for heard in (local, pushed):
                eventually(
                    lambda heard=heard: heard_ready(heard, last), timeout_s=HEARD_MAX_S, what="instance.ready",
                    seen=lambda heard=heard: heard.told,
                )  # fmt: skip
        assert not local.refused and not pushed.refused
        assert local.of(last) == pushed.of(last)
        assert pushed.of(first)
        known = {event["id"]: event for event in listed(up, "&types=instance.*")}
        assert all(known[event["id"]] == event for event in pushed.told)
        assert up.request("DELETE", f"/api/v1/webhooks/{webhook_id}", {}, key=True).status == 200


def test_a_customer_tails_his_own_events_by_key(up: Platform, tmp_path: Path) -> None:
    up.create_ready()
    arguments = ("events", "tail", "--api", up.api_url, "--key", up.api_key, "--data-dir", str(tmp_path), "--json")
    with verb(*arguments, "--after", "start", "--count", "3") as tail:
        printed = [line_of(tail) for _ in range(3)]
        assert tail.wait(HEARD_MAX_S) == 0
    assert printed == listed(up)[:3]
    refused = subprocess.run(
        [sys.executable, "-m", "services.cli", "events", "tail", "--api", up.api_url, "--key", "dumont_sk_" + "x" * 43],
        capture_output=True, text=True, check=False, timeout=HEARD_MAX_S, cwd=ROOT, env=surroundings(),
    )  # fmt: skip
    assert (refused.returncode, "UNAUTHENTICATED" in refused.stderr) == (1, True), refused.stderr
