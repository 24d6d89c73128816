"""What a query of the billing service is handed beside the question."""

from __future__ import annotations

from typing import Protocol

from libs.clock import Clock
from libs.postgres import Database
from services.billing.config import BillingSettings


class Surroundings(Protocol):
    """The part of the service's world that queries use: money is shown as of now, and prepaid or not."""

    @property
    def clock(self) -> Clock: ...

    @property
    def settings(self) -> BillingSettings: ...


class Context(Protocol):
    @property
    def pool(self) -> Database: ...

    @property
    def world(self) -> Surroundings: ...
