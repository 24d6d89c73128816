"""The three fates of an error: the domain says no, the world is unwell, or we are wrong.

Raised by deciders (`Refused`) and adapters (`Transient`); caught once, in `libs.runtime` and `libs.rpc`.
Anything else that is raised is a bug: the message is not acknowledged and the process exits (docs/adr/0007).
"""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """The domain says no. Goes to the caller as `code` + `facts`, is never retried."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(code)
        self.code = code
        self.facts = facts

    def __str__(self) -> str:
        return f"{self.code} {self.facts}" if self.facts else self.code


class Transient(Exception):
    """The world is unwell: worth another try after a pause, a bounded number of times."""


class OutcomeUnknown(Transient):
    """The call may or may not have taken effect. Look before doing it again."""
