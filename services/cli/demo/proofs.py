"""What must hold after a loss, each with what was seen. Pure. Called by `acts`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from services.cli.demo.timeline import Moment
from services.cli.demo.workspace import Comparison

LIVE = frozenset({"creating", "running", "stopping"})
ONCE = ("instance.interrupted", "failover.started", "failover.completed")
CLOCK_S = 0.5  # the window is told in whole seconds


class Proof(Struct, frozen=True):
    """A promise, whether it holds, and what was seen."""

    promise: str
    holds: bool
    seen: str


@dataclass(frozen=True)
class Evidence:
    strategy: str
    before: dict[str, Any]
    after: dict[str, Any]
    failover: dict[str, Any]
    compared: Comparison
    goes_on: bool
    machines: list[dict[str, Any]]
    events: list[Moment]


def prove(evidence: Evidence) -> list[Proof]:
    return list(_proofs(evidence))


def _proofs(it: Evidence) -> Iterator[Proof]:
    before, after, compared, failover = it.before, it.after, it.compared, it.failover
    yield Proof(
        "the same instance runs again",
        after["id"] == before["id"] and after["status"] == "running",
        f"{after['id']} is {after['status']}",
    )
    yield Proof(
        "on another machine, of a later generation",
        after["provider_instance_id"] != before["provider_instance_id"] and after["generation"] > before["generation"],
        f"{after['provider_instance_id']}, generation {before['generation']} -> {after['generation']}",
    )
    yield Proof(f"by {it.strategy}", failover["strategy_succeeded"] == it.strategy, str(failover["strategy_succeeded"]))
    gone = [m["status"] for m in it.machines if m["machine_id"] == before["provider_instance_id"]]
    yield Proof("the cloud no longer runs the old one", not LIVE & set(gone), gone[0] if gone else "unknown to it")
    window_s = failover["data_loss_window_s"]
    # A file that was half written at the instant of a snapshot counts as lost, by when its writing was acknowledged.
    yield Proof(
        "every file is there by checksum, but for the reported window",
        compared.loss_s <= window_s + (CLOCK_S if window_s else 0),
        f"{compared.intact} of {compared.written}, {compared.missing} missing, {compared.changed} unfinished; "
        f"oldest loss {compared.loss_s:.1f} s, window {window_s} s",
    )
    yield Proof("new files can be written there", it.goes_on, "written and read back" if it.goes_on else "not")
    told = Counter(moment.event for moment in it.events)
    counts = ", ".join(f"{name} {told[name]}x" for name in ONCE)
    yield Proof("the loss and its answer were told once", all(told[name] == 1 for name in ONCE), counts)
