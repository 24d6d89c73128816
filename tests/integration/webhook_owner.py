"""The webhook service as the gateway meets it on the bus: an endpoint's real rules, and views of what they said."""

from __future__ import annotations

from typing import Any

import msgspec

from libs.refusal import Refused
from proto.base import Position, Reply, Request
from proto.webhook_dispatch import commands, queries
from services.webhook_dispatch.decider import ENDPOINT

STREAM = "EVT_WEBHOOK_DISPATCH"


class WebhookOwner:
    """Answers what a caller of /api/v1/webhooks may ask; nothing is ever sent anywhere."""

    def __init__(self) -> None:
        self.states: dict[str, Any] = {}
        self.made: dict[str, commands.CreateEndpoint] = {}
        self.seq = 0

    async def answer(self, subject: str, request: Request) -> Reply:
        kind, _, tag = subject.split(".", 2)
        if kind == "cmd":
            self.command(msgspec.json.decode(request.body, type=commands.AnyCommand))
            self.seq += 1
            return Reply(position=Position(STREAM, self.seq))
        if tag in ("health", "metrics"):
            raise Refused("NOT_FOUND", subject=subject)
        asked: Any = queries.ProbeEndpoint if kind == "sig" else queries.AnyQuery
        return Reply(body=msgspec.Raw(msgspec.json.encode(self.reply(msgspec.json.decode(request.body, type=asked)))))

    def command(self, wish: Any) -> None:
        if not isinstance(wish, commands.EndpointCommand):
            return
        state = self.states.get(wish.endpoint_id)
        for event in ENDPOINT.decide(state, wish):
            state = ENDPOINT.evolve(state, event)
        self.states[wish.endpoint_id] = state
        if isinstance(wish, commands.CreateEndpoint):
            self.made.setdefault(wish.endpoint_id, wish)

    def view(self, endpoint_id: str, account_id: str) -> queries.EndpointView:
        state, made = self.states.get(endpoint_id), self.made.get(endpoint_id)
        if state is None or made is None or state.account_id != account_id or state.is_deleted:
            raise Refused("WEBHOOK_NOT_FOUND", webhook_id=endpoint_id)
        return queries.EndpointView(
            endpoint_id=endpoint_id, account_id=account_id, name=state.name, url=state.url, events=state.events,
            status=state.status, kind=state.kind, created_at=made.now, has_secret=bool(state.sealed_secret),
            rate_limit_per_s=state.rate_limit_per_s,
        )  # fmt: skip

    def reply(self, question: Any) -> Any:
        if isinstance(question, queries.ListEndpoints):
            mine = [name for name, state in self.states.items() if state.account_id == question.account_id]
            found = [self.view(name, question.account_id) for name in mine if not self.states[name].is_deleted]
            return queries.EndpointList(found, len(found))
        view = self.view(question.endpoint_id, question.account_id)
        match question:
            case queries.GetEndpoint():
                return view
            case queries.ListAttempts():
                return queries.AttemptList([], 0)
            case queries.ListDeliveries():
                return queries.DeliveryList([], 0)
            case queries.ProbeEndpoint():
                return queries.ProbeResult(outcome="delivered", delivery_id="msg_1", body="{}", took_ms=1)
            case _:
                raise AssertionError(question)
