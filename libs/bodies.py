"""Bodies of HTTP answers, read to their end and never beyond a limit.

Called by whoever asks over HTTP and does not choose what is answered. Owns one rule: aiohttp's `read(n)` gives what has
arrived by now, which for an answer of more than one packet is its beginning.
"""

from __future__ import annotations

from aiohttp import ClientResponse


async def read_at_most(answer: ClientResponse, bytes_max: int) -> bytes:
    """The whole body, or its first `bytes_max` bytes. Raises what aiohttp raises."""
    found = bytearray()
    while len(found) < bytes_max and (part := await answer.content.read(bytes_max - len(found))):
        found += part
    return bytes(found)
