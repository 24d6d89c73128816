"""The fence: which receivers may be dialled. Asked for a URL when an endpoint is made and for every address dialled.

The second question is the one that counts: it is asked where the socket is made, of the address that the connection
really goes to, so neither a literal address, nor a redirect, nor a name that resolves differently each time gets
around it (a check in the resolver is skipped for literals).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, TypeAlias
from urllib.parse import SplitResult, urlsplit

from services.webhook_dispatch.effects.address import LOOPBACK, PUBLIC, classify, classify_host

AddrInfo: TypeAlias = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]
PORTS = frozenset({80, 443})
PORT_UNPRIVILEGED_MIN = 1024


class NotAllowed(OSError):
    """The address lies outside the fence. An OSError, because it is raised where a connection is opened."""


class Fence:
    """`allowed`: networks the operator opens besides the public internet. `is_loopback_allowed`: a developer's own.

    `is_public_allowed` False closes the internet: for sites that deliver only inside, and for tests.
    """

    def __init__(
        self,
        allowed: Sequence[str],
        *,
        is_loopback_allowed: bool,
        is_http_allowed: bool,
        is_public_allowed: bool = True,
    ) -> None:
        self._allowed: list[IPv4Network | IPv6Network] = [ip_network(network, strict=False) for network in allowed]
        self._is_loopback_allowed = is_loopback_allowed
        self._is_http_allowed = is_http_allowed
        self._is_public_allowed = is_public_allowed

    def refusal(self, address: str) -> str:
        """Why this address may not be dialled; empty when it may."""
        kind = classify(address)
        is_open = (kind == PUBLIC and self._is_public_allowed) or (kind == LOOPBACK and self._is_loopback_allowed)
        if is_open or self._is_listed(address):
            return ""
        return kind or "public"

    def url_refusal(self, url: str) -> str:
        """Why an endpoint cannot have this URL, in words for its owner; empty when it can."""
        parts = _split(url)
        if parts is None:
            return "it is not a URL"
        host, port = parts.hostname or "", parts.port
        if parts.scheme not in ("http", "https"):
            return "only http and https can be delivered to"
        if parts.username is not None or parts.password is not None:
            return "a user name or password in the URL is not sent; use the secret"
        if port is not None and port not in PORTS and port < PORT_UNPRIVILEGED_MIN:
            return f"port {port} is not one for receivers; use 80, 443 or one above 1023"
        kind = classify_host(host)
        if kind and not (kind == LOOPBACK and self._is_loopback_allowed) and not self._is_listed(host):
            return "its address is not on the public internet"
        if parts.scheme == "http" and not self._is_http_allowed and not self._is_listed(host):
            return "use https"
        return ""

    def socket_factory(self) -> Callable[[AddrInfo], socket.socket]:
        """Makes the sockets of a connector, and none for an address outside the fence."""

        def make(address_info: AddrInfo) -> socket.socket:
            family, kind, protocol, _, address = address_info
            if reason := self.refusal(str(address[0])):
                raise NotAllowed(f"{reason} address")
            return socket.socket(family, kind, protocol)

        return make

    def _is_listed(self, address: str) -> bool:
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(found.version == network.version and found in network for network in self._allowed)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return None
    return parts if parts.hostname and url.isprintable() and " " not in url else None
