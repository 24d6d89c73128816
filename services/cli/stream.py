"""The account's event stream over HTTP (`GET /api/v1/events/stream`), followed across lost connections.

Used by `events tail --key` and `webhooks listen`. Needs no platform in a data directory: an address and a key will do.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode, urlsplit

import typer

from services.cli import output
from services.cli.api import problem_words
from services.cli.exits import FAILED, NOT_RUNNING, USAGE, Exit
from services.cli.running import running_state

# The stream has a heartbeat every 15 s; two of them missed and the connection is dead.
SILENCE_S = 40.0
RECONNECT_PAUSE_S = 1.0
FIRST_TRIES_MAX = 3
ERROR_BYTES_MAX = 64 * 1024
LINE_BYTES_MAX = 1024 * 1024  # an event is at most 64 KiB

ApiUrl = Annotated[
    str, typer.Option("--api", envvar="DUMONT_API_URL", help="Address of the platform; default: the one running here.")
]
ApiKey = Annotated[
    str, typer.Option("--key", envvar="DUMONT_API_KEY", help="API key; default: that of the platform running here.")
]
EventTypes = Annotated[str, typer.Option("--events", help="Comma-separated, e.g. 'instance.*,failover.completed'.")]
After = Annotated[str, typer.Option(help="Begin after this event id; 'start' for the oldest, 'now'.")]


@dataclass(frozen=True)
class Account:
    """Whose events, and where."""

    url: str
    key: str


def account_of(api: str, key: str, data_dir: Path) -> Account:
    """What is given, else that of the platform running here. Exits when neither is there."""
    if api and key:
        return Account(api.rstrip("/"), key)
    state = running_state(data_dir)
    return Account((api or state.api_url).rstrip("/"), key or state.api_key)


class Refused(Exception):
    """The platform said no for good."""


def follow(account: Account, *, types: str, after: str) -> Iterator[tuple[str, bytes]]:
    """(id, JSON as it was sent) of each event, for ever. Exits when the platform says no."""
    last_id, misses = "", 0
    while True:
        try:
            for event_id, data in _once(account, types=types, after=after, last_id=last_id):
                misses = 0
                last_id = event_id or last_id
                if data:
                    yield event_id, data
        except Refused as refused:
            raise Exit(str(refused), FAILED) from refused
        except (OSError, http.client.HTTPException) as lost:
            misses += 1
            if not last_id and misses >= FIRST_TRIES_MAX:
                raise Exit(f"{account.url} does not answer: {lost}", NOT_RUNNING) from lost
            output.warn(f"lost the connection ({type(lost).__name__}); going on where it ended")
        time.sleep(RECONNECT_PAUSE_S)


def _once(account: Account, *, types: str, after: str, last_id: str) -> Iterator[tuple[str, bytes]]:
    """One connection, until it ends."""
    address = urlsplit(account.url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise Exit(f"{account.url} is no address of a platform", USAGE)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    query = urlencode({name: value for name, value in (("types", types), ("after", after)) if value})
    headers = {"Authorization": f"Bearer {account.key}", "Accept": "text/event-stream", "Accept-Language": "en"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    connection = kind(address.hostname, address.port, timeout=SILENCE_S)
    try:
        connection.request("GET", f"{address.path}/api/v1/events/stream?{query}", headers=headers)
        response = connection.getresponse()
        if response.status >= 500 or response.status == 429:
            raise ConnectionError(f"HTTP {response.status}")
        if response.status != 200:
            raise Refused(f"events: {response.status} {problem_words(response.read(ERROR_BYTES_MAX))}")
        yield from _events(response)
    finally:
        connection.close()


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[str, bytes]]:
    event_id, data = "", b""
    while line := response.readline(LINE_BYTES_MAX):
        name, _, value = line.rstrip(b"\r\n").partition(b": ")
        if name == b"id":
            event_id = value.decode()
        elif name == b"data":
            data = value
        elif not name:
            yield event_id, data
            event_id, data = "", b""
