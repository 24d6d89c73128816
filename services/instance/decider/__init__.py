"""The rules of the instance service, pure: state, decide(state, command) -> events or Refused, evolve(state, event).

Split by noun. `wishes` is the entry; `instance`, `machine_state`, `vault`, `sleep`, `cpu_state` and `way_back` are what
is remembered. Of an instance: `lifecycle` (the customer's wishes), `machine` (what is reported), `requests` (what is
asked of clouds), `silence`, `snapshots`, `hibernation`, `suspension`, `volume`. When its machine is lost: `standby`,
`cpu_standby`, `recovery`, `moving`, `migration`, `gpu_return`. Which machine: `market`, `gpu_search`. Beside instances:
`host` (attempts and blacklist), `orphan` (machines that no instance owns), `bill` (what clouds charge us), `care` (how
an account wants its machines watched and replaced).
"""

from __future__ import annotations

from libs.runtime.service import Aggregate
from proto.instance.care import CareNoted
from proto.instance.events import InstanceEvent
from proto.instance.host_events import HostEvent, MachineBilled, OrphanEvent
from services.instance.decider import bill, care, host, instance, orphan, wishes

INSTANCE = Aggregate("instance", None, wishes.decide, instance.evolve, InstanceEvent)
HOST = Aggregate("host", host.NO_HOST, host.decide, host.evolve, HostEvent)
ORPHAN = Aggregate("orphan", None, orphan.decide, orphan.evolve, OrphanEvent)
BILL = Aggregate("bill", bill.NO_BILL, bill.decide, bill.evolve, MachineBilled)
ACCOUNT = Aggregate("account", care.UNHEARD, care.decide, care.evolve, CareNoted)
AGGREGATES = (INSTANCE, HOST, ORPHAN, BILL, ACCOUNT)
