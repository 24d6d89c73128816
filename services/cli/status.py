"""`status`: what runs in a data directory, and whether the platform says it is ready."""

from __future__ import annotations

import http.client
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psutil
from msgspec import Struct

from libs.embedded.state import Member, State
from services.cli import output
from services.cli.exits import FAILED, Exit
from services.cli.running import DEFAULT_DATA_DIR, DataDir, running_state

READY_TIMEOUT_S = 3.0
MEGABYTE = 1024 * 1024


class _Unready(Struct, frozen=True):
    reasons: list[str]


def status(data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False) -> None:
    """Show processes, deaths and readiness. Exit status: 0 ready, 1 running but not ready, 3 not running."""
    state = running_state(data_dir)
    members = [_row(name, member) for name, member in state.members.items()]
    reasons = _not_ready(state)
    failing = [f"{name} died three times within a minute" for name, member in state.members.items() if member.failing]
    if json:
        output.as_json(
            {
                "ready": not reasons,
                "reasons": reasons + failing,
                "api_url": state.api_url,
                "data_dir": state.data_dir,
                "durability": state.durability,
                "supervisor_pid": state.supervisor_pid,
                "members": members,
            }
        )
    else:
        about = {"Ready": not reasons, "API": state.api_url, "Data": state.data_dir, "Durability": state.durability}
        output.as_fields(about)
        output.tell("")
        output.as_table(
            ["process", "pid", "state", "memory MB", "deaths", "last death"],
            [[row[key] for key in ("name", "pid", "state", "memory_mb", "deaths", "last_end")] for row in members],
            empty="no processes",
        )
        for reason in reasons + failing:
            output.warn(reason)
    if reasons:
        raise Exit("not ready", FAILED)


def _row(name: str, member: Member) -> dict[str, Any]:
    memory_bytes = 0
    state = "restarting"
    try:
        process = psutil.Process(member.pid) if member.pid else None
        if process is not None:
            memory_bytes = process.memory_info().rss
            state = "failing" if member.failing else "running"
    except psutil.NoSuchProcess:
        pass
    return {
        "name": name,
        "pid": member.pid,
        "state": state,
        "memory_mb": memory_bytes // MEGABYTE,
        "deaths": member.deaths,
        "last_end": member.last_end,
    }


def _not_ready(state: State) -> list[str]:
    """Why `/readyz` says no; empty when it says yes or there is no gateway to ask."""
    if "gateway" not in state.members:
        return []
    address = urlsplit(state.api_url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=READY_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        body = response.read()
    except OSError as error:
        return [f"{state.api_url} does not answer: {error}"]
    finally:
        connection.close()
    if response.status == 200:
        return []
    try:
        reasons = msgspec.json.decode(body, type=_Unready).reasons
    except (msgspec.DecodeError, msgspec.ValidationError):
        reasons = []
    return reasons or [f"/readyz answers {response.status}"]
