"""The rules of the instance service, pure: state, decide(state, command) -> events or Refused, evolve(state, event).

Split by noun: `wishes` (the entry), `instance`, `machine_state` and `vault` (what is remembered), `lifecycle` (the
customer's wishes), `machine` (what is reported about machines), `standby`, `snapshots`, `recovery`, `silence`, `host`
(attempts and blacklist), `orphan` (machines that no instance owns),
`bill` (what clouds charge us).
"""

from __future__ import annotations

from libs.runtime.service import Aggregate
from proto.instance.events import (
    InstanceEvent,
)
from proto.instance.host_events import HostEvent, MachineBilled, OrphanEvent
from services.instance.decider import bill, host, instance, orphan, wishes

INSTANCE = Aggregate("instance", None, wishes.decide, instance.evolve, InstanceEvent)
HOST = Aggregate("host", host.NO_HOST, host.decide, host.evolve, HostEvent)
ORPHAN = Aggregate("orphan", None, orphan.decide, orphan.evolve, OrphanEvent)
BILL = Aggregate("bill", bill.NO_BILL, bill.decide, bill.evolve, MachineBilled)
AGGREGATES = (INSTANCE, HOST, ORPHAN, BILL)
