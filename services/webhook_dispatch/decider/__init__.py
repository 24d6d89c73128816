"""The rules of webhook dispatch, pure: state, decide(state, command) -> events or Refused, evolve(state, event).

Split by noun: `endpoint` (a URL and how it fares), `mailbox` (what became of deliveries), `retry_schedule` (when to try
again), `account` (the default secret).
"""

from __future__ import annotations

from libs.runtime.service import Aggregate
from proto.webhook_dispatch.events import AccountEvent, EndpointEvent, MailboxEvent
from services.webhook_dispatch.decider import account, endpoint, mailbox

ENDPOINT = Aggregate("endpoint", None, endpoint.decide, endpoint.evolve, EndpointEvent)
MAILBOX = Aggregate("mailbox", mailbox.EMPTY, mailbox.decide, mailbox.evolve, MailboxEvent, is_heard=False)
ACCOUNT = Aggregate("account", account.NO_SECRET, account.decide, account.evolve, AccountEvent)
AGGREGATES = (ENDPOINT, MAILBOX, ACCOUNT)
