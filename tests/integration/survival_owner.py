"""The failover and warm pool services as the gateway meets them on the bus: their real rules, nothing ever lost."""

from __future__ import annotations

from typing import Any

import msgspec

from libs.refusal import Refused
from libs.runtime.service import Aggregate
from proto.base import Position, Reply, Request
from proto.failover import commands as failover_commands
from proto.failover import queries as failover_queries
from proto.failover.words import GlobalSettings, MachineSettings, PoolSeen
from proto.warmpool import commands as pool_commands
from proto.warmpool import queries as pool_queries
from services.failover.decider import GUARD, SETTINGS, ladder
from services.warmpool.decider import POOL


class SurvivalOwner:
    """Answers what a caller of /failover and /warmpool may ask, of instances that nothing has happened to."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str], Any] = {}
        self.seq = 0

    async def answer(self, subject: str, request: Request) -> Reply:
        kind, service, tag = subject.split(".", 2)
        if kind == "cmd":
            wishes = failover_commands.AnyCommand if service == "failover" else pool_commands.AnyCommand
            self.command(msgspec.json.decode(request.body, type=wishes))
            self.seq += 1
            return Reply(position=Position(f"EVT_{service.upper()}", self.seq))
        if tag in ("health", "metrics"):
            raise Refused("NOT_FOUND", subject=subject)
        asked: Any = failover_queries.AnyQuery if service == "failover" else pool_queries.GetPool
        return Reply(body=msgspec.Raw(msgspec.json.encode(self.reply(msgspec.json.decode(request.body, type=asked)))))

    def command(self, wish: Any) -> None:
        rules: dict[str, Aggregate] = {"guard": GUARD, "settings": SETTINGS, "pool": POOL}
        rule, key = rules[wish.aggregate], (wish.aggregate, wish.aggregate_id)
        state = self.states.get(key, rule.initial)
        for event in rule.decide(state, wish):
            state = rule.evolve(state, event)
        self.states[key] = state

    def reply(self, question: Any) -> Any:
        match question:
            case failover_queries.GetSettings(account_id=account_id):
                return self.states.get(("settings", account_id), GlobalSettings())
            case failover_queries.GetNewMachineProtection(account_id=account_id, strategy=strategy):
                return ladder.new_machine(strategy, self.states.get(("settings", account_id), GlobalSettings()))
            case failover_queries.GetProtection(instance_id=instance_id):
                guard = self.states.get(("guard", instance_id))
                own = guard.settings if guard else MachineSettings()
                return failover_queries.MachineProtection(instance_id, own, own.strategy, 0, None, None)
            case failover_queries.ListProtections():
                return []
            case failover_queries.ListFailovers():
                return failover_queries.FailoverList([], 0, 0, 0, None)
            case failover_queries.GetFailover(failover_id=failover_id):
                raise Refused("FAILOVER_NOT_FOUND", failover_id=failover_id)
            case failover_queries.GetReadiness(instance_id=instance_id):
                return failover_queries.Readiness(instance_id, "both", False, False, PoolSeen(), [], [], 0, 5, [])
            case pool_queries.GetPool(instance_id=instance_id):
                pool = self.states.get(("pool", instance_id))
                return pool_queries.PoolView(instance_id, pool.status if pool else "disabled")
            case _:
                raise AssertionError(f"nobody answers {question!r}")
