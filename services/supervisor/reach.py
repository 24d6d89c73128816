"""What can be known to be wrong with addresses before anything starts.

Called by `plan`. Without this, services would try an outside server for two minutes before anybody is told.
"""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit

OUTSIDE_ANSWERS_S = 10.0  # a server that is starting beside us is waited for so long
CONNECT_S = 3.0
PAUSE_S = 0.2


class Unreachable(Exception):
    """The text says what cannot be reached and which setting names it; never a password."""


def bindable(host: str) -> None:
    """Raises Unreachable when no server of ours can listen there, whatever the port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        raise Unreachable(
            f"cannot listen on {host}: {error.strerror}; --host takes an address of this machine, such as 127.0.0.1"
        ) from error


def answering(name: str, variable: str, url: str, default_port: int, timeout_s: float = OUTSIDE_ANSWERS_S) -> None:
    """Raises Unreachable when none of the addresses in `url` (comma-separated) takes a connection in time."""
    places = [place for part in url.split(",") if (place := _place(part, default_port))]
    if not places:
        return  # a Unix socket, or a spelling that only the client knows
    give_up_s, why = time.monotonic() + timeout_s, ""
    while True:
        for place in places:
            try:
                socket.create_connection(place, CONNECT_S).close()
            except OSError as error:
                why = error.strerror or "no answer in time"
            else:
                return
        if time.monotonic() >= give_up_s:
            where = ", ".join(f"{host}:{port}" for host, port in places)
            raise Unreachable(f"{name} at {where} ({variable}) takes no connection: {why}")
        time.sleep(PAUSE_S)


def _place(part: str, default_port: int) -> tuple[str, int] | None:
    try:
        address = urlsplit(part.strip())
        port = address.port or default_port
    except ValueError:
        return None
    return (address.hostname, port) if address.hostname else None
