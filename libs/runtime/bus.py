"""The bus port: requests to the owner of something, answered or refused within a deadline. Nothing here is stored.

Called by the gateway, the CLI and `libs.runtime`; implemented by `libs.rpc` (core NATS request/reply) and by `libs.sim`
in memory. Subjects: `cmd.<service>.<tag>`, `qry.<service>.<tag>`, `sig.<service>.<tag>`; one queue group per service.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from libs.refusal import OutcomeUnknown, Transient
from proto.base import Command, Meta, Query, Reply, Request, Signal

# subject tag, decoded envelope -> reply. Raising Refused or Transient becomes a refusal; anything else is a bug.
Serve = Callable[[str, Request], Awaitable[Reply]]


class Unanswered(OutcomeUnknown):
    """No reply before the deadline: a command may or may not have been carried out."""


class NobodyThere(Transient):
    """No replica of the service is listening: nothing was done."""


class Bus(Protocol):
    async def ask(self, message: Command | Query | Signal, meta: Meta) -> Reply:
        """Send to the owner and wait until `meta.deadline`. Raises Refused, Unanswered, NobodyThere."""
        ...

    async def serve(self, service: str, handler: Serve) -> None:
        """Answer `cmd|qry|sig.<service>.*`, side by side up to the adapter's limit, until the bus is closed."""
        ...

    async def close(self) -> None: ...
