"""URLs that carry credentials: what may be shown stays readable, the whole is sealed behind it, in one text.

Used by the gateway, which takes such a URL, and by whoever calls it. `https://h/p?token=x` becomes
`https://h/p?token=***#sealed:v1.…`: a fragment is never sent, so the text is still a URL of the same host. A URL
without a query is left as it is; user names and passwords are refused before (a receiver's secret signs instead).
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from libs.sealing import MARK, Sealer

HIDDEN = "***"
_SEALED_BEHIND = f"#{MARK}"


def hidden(url: str, sealer: Sealer, *, owner: str) -> str:
    """The same URL gives the same text, so that a repeat changes nothing."""
    parts = urlsplit(url)
    if not parts.query:
        return url
    query = "&".join(_without_value(pair) for pair in parts.query.split("&"))
    shown_part = urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))
    return f"{shown_part}{_SEALED_BEHIND}{sealer.seal_alike(url, owner=owner)}"


def _without_value(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={HIDDEN}" if equals else HIDDEN


def shown(text: str) -> str:
    """Without the sealed part: for answers, events and logs."""
    return text.partition(_SEALED_BEHIND)[0]


def opened(text: str, sealer: Sealer, *, owner: str) -> str:
    """The URL to call. Raises NotSealedHere."""
    _, mark, sealed = text.partition(_SEALED_BEHIND)
    return sealer.open(sealed, owner=owner) if mark else text
