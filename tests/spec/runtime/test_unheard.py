"""An aggregate may be unheard only when no event of it is public and no effect works on one."""

from __future__ import annotations

import pytest

from libs.runtime.service import Aggregate, Service
from services.failover.rooms import SERVICE as FAILOVER
from services.instance.rooms import SERVICE as INSTANCE
from services.warmpool.rooms import SERVICE as WARMPOOL
from services.webhook_dispatch.rooms import SERVICE as WEBHOOK_DISPATCH

UNHEARD = [
    (service, aggregate)
    for service in (FAILOVER, INSTANCE, WARMPOOL, WEBHOOK_DISPATCH)
    for aggregate in service.aggregates
    if not aggregate.is_heard
]


@pytest.mark.parametrize(("service", "aggregate"), UNHEARD, ids=lambda value: getattr(value, "kind", ""))
def test_an_unheard_aggregate_says_nothing_that_others_wait_for(service: Service, aggregate: Aggregate) -> None:
    events = getattr(aggregate.events, "__args__", (aggregate.events,))
    assert not any(event.public or event in service.effects for event in events)


def test_there_is_one() -> None:
    assert [aggregate.kind for _, aggregate in UNHEARD] == ["mailbox"]
