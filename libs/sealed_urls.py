"""URLs that carry credentials: what may be shown stays readable, the whole is sealed behind it, in one text.

Used by the gateway, which takes such a URL, and by whoever calls it. `https://h/hooks/B0dX3a9?token=x` becomes
`https://h/hooks/***?token=***#sealed:v1.…`: a fragment is never sent, so the text is still a URL of the same host. Of a
path the words are shown, and what may be a credential is not; of services that put theirs there nothing is. A URL of
words alone is left as it is; user names and passwords are refused before (a receiver's secret signs instead).
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote_plus, urlsplit, urlunsplit

from libs.sealing import MARK, Sealer

HIDDEN = "***"
CREDENTIAL_CHARS_MIN = 4  # less is found in any text, and says nothing
_SEALED_BEHIND = f"#{MARK}"
# Of these hosts the path is the credential and says nothing else: none of it is shown.
_SECRET_PATHS = (
    "api.telegram.org",
    "chat.googleapis.com",
    "discord.com",
    "discordapp.com",
    "hooks.slack-gov.com",
    "hooks.slack.com",
    "hooks.zapier.com",
    "ifttt.com",
    "logic.azure.com",
    "make.com",
    "outlook.office.com",
    "webhook.office.com",
    "webhook.site",
)
# A word as people write them, maybe numbered (`hooks`, `IncomingWebhook`, `API`, `prod2`), or a small number. Whoever
# makes credentials mixes digits, small and large letters, or makes them longer than a word; a short one of small
# letters alone cannot be told from a word, and is shown.
_LETTERS = r"(?:[a-z]+|[A-Z]?[a-z]{2,}(?:[A-Z][a-z]{2,})*|[A-Z]{1,4})"
_WORD = rf"(?:(?=[A-Za-z]{{1,15}}(?![A-Za-z])){_LETTERS}[0-9]{{0,2}}|[0-9]{{1,5}})"
_READABLE = re.compile(rf"{_WORD}(?:[-_.]{_WORD}){{0,4}}", re.ASCII)


def hidden(url: str, sealer: Sealer, *, owner: str) -> str:
    """The same URL gives the same text, so that a repeat changes nothing."""
    parts = urlsplit(url)
    unsaid = _credentials(parts)
    path = "/".join(HIDDEN if segment in unsaid else segment for segment in parts.path.split("/"))
    if not parts.query and path == parts.path:
        return url
    query = "&".join(_without_value(pair) for pair in parts.query.split("&") if pair)
    shown_part = urlunsplit((parts.scheme, parts.netloc, path, query, ""))
    return f"{shown_part}{_SEALED_BEHIND}{sealer.seal_alike(url, owner=owner)}"


def _credentials(parts: SplitResult) -> frozenset[str]:
    """Segments of the path that are not shown."""
    segments = frozenset(filter(None, parts.path.split("/")))
    host = f".{parts.hostname or ''}"
    if any(host.endswith(f".{known}") for known in _SECRET_PATHS):
        return segments
    return frozenset(segment for segment in segments if not _READABLE.fullmatch(segment))


def _without_value(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    return f"{name}={HIDDEN}" if equals else HIDDEN


def credentials_in(url: str) -> tuple[str, ...]:
    """What `hidden` does not show of an opened URL, the longest first: for texts that may repeat it."""
    parts = urlsplit(url)
    found = set(_credentials(parts))
    found |= {pair.partition("=")[2] or pair for pair in parts.query.split("&")}
    found |= {unquote_plus(part) for part in found}
    return tuple(sorted((part for part in found if len(part) >= CREDENTIAL_CHARS_MIN), key=len, reverse=True))


def shown(text: str) -> str:
    """Without the sealed part: for answers, events and logs."""
    return text.partition(_SEALED_BEHIND)[0]


def opened(text: str, sealer: Sealer, *, owner: str) -> str:
    """The URL to call. Raises NotSealedHere."""
    _, mark, sealed = text.partition(_SEALED_BEHIND)
    return sealer.open(sealed, owner=owner) if mark else text
