"""The numbers: what each plan and each class allows. Read once at start from DUMONT_LIMITS, laid over the defaults.

The defaults are those of the seeds: plans of seed 000 (and 003), classes per address of seed 001. What no seed names
(requests without an account, failed logins, agents) is ours.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta, Struct, field

from libs.config import ConfigError
from proto.gateway.words import Plan

PERIOD_S_MAX = 86_400
MICROS = 1_000_000

Count = Annotated[int, Meta(ge=1, le=100_000_000)]


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    """`requests` at once when nothing was asked for a while, and as many per `period_s` in the long run."""

    requests: Count
    period_s: Annotated[int, Meta(ge=1, le=PERIOD_S_MAX)]


class PlanLimits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`per_day` counts the UTC day, 0 is unlimited. `per_address`: the classes of seed 001 hold as well."""

    per_minute: Count
    per_day: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    per_address: bool = True


class AddressLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """Per client address. `create`, `read`, `write` are the Novita dialect's; `open` is for what needs no key."""

    create: Rate = Rate(10, 60)
    read: Rate = Rate(100, 60)
    write: Rate = Rate(1_000, 3_600)
    open: Rate = Rate(6_000, 60)  # probes and scrapes come from few addresses; a flood is stopped all the same
    failed_login: Rate = Rate(20, 60)


SEED_000: dict[Plan, PlanLimits] = {
    "free": PlanLimits(per_minute=60, per_day=1_000),
    "pro": PlanLimits(per_minute=300, per_day=10_000),
    "enterprise": PlanLimits(per_minute=1_000),
    # Whoever runs the installation, on their own machine: more than one gateway can serve, yet a limit.
    "operator": PlanLimits(per_minute=600_000, per_address=False),
}
SEED_003: dict[Plan, PlanLimits] = {
    "free": PlanLimits(per_minute=100),
    "pro": PlanLimits(per_minute=1_000),
    "enterprise": PlanLimits(per_minute=5_000),
    "operator": PlanLimits(per_minute=600_000, per_address=False),
}


class LimitTable(Struct, frozen=True, forbid_unknown_fields=True):
    """`plans` by API family and plan; dialects without any have those of `dumont`. `agent`: per machine."""

    plans: dict[str, dict[Plan, PlanLimits]] = field(
        default_factory=lambda: {"dumont": SEED_000, "robocompute": SEED_003}
    )
    address: AddressLimits = AddressLimits()
    agent: Rate = Rate(600, 60)


def limit_table(text: str) -> LimitTable:
    """The defaults with `text` (a JSON object, may be empty) laid over them. Raises ConfigError."""
    try:
        wanted = msgspec.json.decode(text or "{}", type=dict[str, Any])
        table = msgspec.convert(_laid_over(msgspec.to_builtins(LimitTable()), wanted), LimitTable)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ConfigError("gateway", [f"DUMONT_LIMITS is no table of limits: {error}"]) from error
    missing = [f"{family}.{plan}" for family, plans in table.plans.items() for plan in SEED_000 if plan not in plans]
    if missing:
        raise ConfigError("gateway", [f"DUMONT_LIMITS: plans.{name} is missing" for name in missing])
    return table


def _laid_over(base: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Objects are merged name by name; everything else replaces."""
    merged = dict(base)
    for name, value in wanted.items():
        known = merged.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            merged[name] = _laid_over(cast("dict[str, Any]", known), cast("dict[str, Any]", value))
        else:
            merged[name] = value
    return merged
