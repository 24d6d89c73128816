"""What becomes of an instance that nothing pays for any more: hibernated while the money lasts for it, else stopped.

Called by `wishes.decide` for what billing says (`balance.suspended`), again and again while the instance costs money.
A copy takes a minute or two, and the ledger says so with minutes of burn left; when those are used up it is stopped as
it is, with its disk. So what it may still cost is bounded by money, not by how long a copy takes. When the time for
which files are kept unpaid is over (`balance.storage_expired`), what sleeps is deleted.
"""

from __future__ import annotations

from collections.abc import Sequence

from proto.base import Event
from proto.instance.commands import DeleteInstance, ExpireInstance, SuspendInstance
from services.instance.decider import cpu_standby, hibernation, lifecycle, standby
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import ON


def decide(state: Instance, command: SuspendInstance) -> Sequence[Event]:
    """Nothing for what is stopping or has stopped, except that its standbys are given back."""
    primary = state.primary
    if primary is None or primary.status not in ON or state.status in ("stopping", "deleting"):
        return [] if state.status == "recovering" else _without_standbys(state, command.reason)
    if command.balance_usd_micros > 0:
        if state.status == "hibernating":
            return []
        if _can_hibernate(state, command):
            return hibernation.begin(state, primary, command.now, idle_since=command.now, reason=command.reason)
    return lifecycle.stopping(state, primary, command.reason)


def expire(state: Instance, command: ExpireInstance) -> Sequence[Event]:
    """What was paid for and woken meanwhile is left alone."""
    if state.status not in ("hibernated", "stopped"):
        return []
    wish = DeleteInstance(
        now=command.now, instance_id=command.instance_id, account_id=command.account_id, reason=command.reason
    )
    return lifecycle.delete(state, wish)


def _can_hibernate(state: Instance, command: SuspendInstance) -> bool:
    """Not when a copy has just failed: the next would as well."""
    not_before = state.sleep.not_before
    has_failed = not_before is not None and command.now < not_before
    return state.status == "ready" and command.has_storage and not has_failed


def _without_standbys(state: Instance, reason: str) -> Sequence[Event]:
    return [*standby.give_back_all(state, reason), *cpu_standby.give_back(state, reason)]
