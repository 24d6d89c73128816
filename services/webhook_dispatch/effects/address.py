"""Which addresses belong to the public internet: the IANA special-purpose registries as our own table. Pure.

Used by `fence` on URLs when an endpoint is made and on the address really dialled. Our own table because the standard
library's `is_global` differs between Python versions and lets several of these ranges through (3.11 calls global:
2002::/16, 192.88.99.0/24, 3fff::/20 and more). An IPv6 address that carries an IPv4 one is judged by what it carries.
"""

from __future__ import annotations

import re
import unicodedata
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

PUBLIC = ""
LOOPBACK = "loopback"
UNKNOWN = "not an address"
IDEOGRAPHIC_DOT = "\u3002"  # IDNA takes it for a dot

_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), name)
    for network, name in (
        ("0.0.0.0/8", "this network"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", LOOPBACK),
        ("168.63.129.16/32", "cloud metadata"),  # a cloud's host services, on an address that is globally routed
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "protocol assignments"),
        ("192.0.2.0/24", "documentation"),
        ("192.31.196.0/24", "AS112"),
        ("192.52.193.0/24", "AMT"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "AS112"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), name)
    for network, name in (
        ("::/128", "unspecified"),
        ("::1/128", LOOPBACK),
        ("::/96", "IPv4-compatible"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discard"),
        ("100:0:0:1::/64", "dummy prefix"),
        ("2001::/23", "protocol assignments"),  # Teredo, benchmarking, ORCHID among them
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("2620:4f:8000::/48", "AS112"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")  # SIIT
_NAT64 = IPv6Network("64:ff9b::/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_UNICAST = IPv6Network("2000::/3")  # all that IANA has given out
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.ASCII)


def classify(address: str) -> str:
    """The name of the special-purpose range, PUBLIC ("") for none of them, UNKNOWN for what is not an address."""
    try:
        found = ip_address(address.partition("%")[0].removeprefix("[").removesuffix("]"))
    except ValueError:
        return UNKNOWN
    return _classify_v4(found) if isinstance(found, IPv4Address) else _classify_v6(found)


def classify_host(host: str) -> str | None:
    """As `classify`, for the host of a URL: None when it is a name that only DNS can judge.

    Knows the spellings that resolvers take for addresses: `127.1`, `0x7f000001`, `0177.0.0.1`, full-width digits.
    """
    plain = unicodedata.normalize("NFKC", host).replace(IDEOGRAPHIC_DOT, ".").strip().rstrip(".").lower()
    if not plain:
        return UNKNOWN
    if plain == "localhost" or plain.endswith(".localhost"):
        return LOOPBACK
    verdict = classify(plain)
    if verdict != UNKNOWN:
        return verdict
    spelled = _spelled_v4(plain)
    return None if spelled is None else _classify_v4(spelled)


def _classify_v4(address: IPv4Address) -> str:
    return next((name for network, name in _V4 if address in network), PUBLIC)


def _classify_v6(address: IPv6Address) -> str:
    last_four_bytes = IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _MAPPED or address in _NAT64 or address in _TRANSLATED:
        return _classify_v4(last_four_bytes)
    if address in _SIX_TO_FOUR:
        inside = _classify_v4(IPv4Address(int(address) >> 80 & 0xFFFF_FFFF))
        return inside or "6to4"
    found = next((name for network, name in _V6 if address in network), PUBLIC)
    return found or (PUBLIC if address in _UNICAST else "unassigned")


def _spelled_v4(host: str) -> IPv4Address | None:
    """One to four numbers, decimal, octal or hexadecimal, the last one filling what is left (inet_aton)."""
    parts = host.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return None
    *leading, last = (_number(part) for part in parts)
    room = 256 ** (4 - len(leading))
    if any(number > 255 for number in leading) or last >= room:
        return None
    value = last
    for index, number in enumerate(leading):
        value += number << (8 * (3 - index))
    return IPv4Address(value)


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    if text.startswith("0") and set(text) <= set("01234567"):
        return int(text, 8)
    return int(text)
