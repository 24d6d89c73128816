"""The background tasks that compare what clouds say with what we believe, and report every difference.

Run by the replica that holds the lease, one watch per cloud. Hints (push signals) are followed at once; everything is
compared every `poll_s` seconds, or as often as the most demanding account wants, so a lost hint only costs time. The
same pass is the census: a machine that carries our platform's label and that no instance owns is reported as an
orphan. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from libs.refusal import Refused, Transient
from libs.runtime.service import Handle
from proto.base import Command
from proto.instance.commands import ReportBooted, ReportDestroyed, ReportFailed, ReportStopped
from proto.instance.words import MachineStatus
from services.instance.decider.instance import Instance
from services.instance.decider.machine_state import Machine
from services.instance.effects.counting_volumes import VolumeCensus
from services.instance.effects.orphans import gone, orphan
from services.instance.effects.world import World
from services.instance.providers import Provider, ProviderMachine, ProviderStatus
from services.instance.queries import cares, contracts
from services.instance.queries.batching import Batches
from services.instance.queries.contracts import Contract

HINT_RETRY_S = 0.2
HINT_TRIES_MAX = 50  # a hint may come before the contract is in the log: 10 s; then the poll is for it
SIGNALS_RETRY_S = 1.0
# A cloud that does not find a machine may find it again (a replica behind, a listing cut short): absence that no signal
# announced is believed when it has lasted so long.
GONE_CONFIRM_S = 1.0
CHECKS_AT_ONCE_MAX = 32
LOOKING_SHARE = 10  # of the time, one part is spent on a long list, however often an account wants it looked at

_OFF: frozenset[ProviderStatus] = frozenset({"stopped", "exited", "failed"})
_ON_THE_WAY: frozenset[ProviderStatus | None] = frozenset({"creating", "stopping"})  # what follows is what matters


async def watch_providers(world: World, handle: Handle) -> None:
    """One watch per cloud, for ever."""
    async with asyncio.TaskGroup() as group:
        for provider in world.providers.values():
            watch = Watch(provider, world, handle)
            group.create_task(watch.follow_signals())
            group.create_task(watch.compare_for_ever())


class _Hint(NamedTuple):
    """A machine to look at, what the cloud said of it (None: nothing), and how often it was looked at in vain."""

    status: ProviderStatus | None = None
    tries: int = 0


class Watch:
    """Compares one cloud with the log. `_hints`: machines that may have changed."""

    def __init__(self, provider: Provider, world: World, handle: Handle) -> None:
        self._provider = provider
        self._world = world
        self._handle = handle
        self._hints: dict[str, _Hint] = {}
        self._hinted = asyncio.Event()
        self._unknown_since: dict[str, float] = {}
        self._missed_since: dict[str, float] = {}
        self._checks = asyncio.Semaphore(CHECKS_AT_ONCE_MAX)
        self._contracts = Batches[Contract]()
        self._volumes = VolumeCensus(provider, world, self._report)

    async def follow_signals(self) -> None:
        """Remember every hint; a broken signal path is taken up again and the poll covers the gap."""
        while True:
            try:
                async for news in self._provider.signals():
                    if news.status not in _ON_THE_WAY:
                        self._hints[news.provider_machine_id] = _Hint(news.status)
                        self._hinted.set()
            except Transient as unwell:
                self._world.logger.info("signals.interrupted", provider=self._provider.name, cause=str(unwell))
            await self._world.clock.sleep(SIGNALS_RETRY_S)

    async def compare_for_ever(self) -> None:
        world = self._world
        next_poll_s = next_census_s = world.clock.monotonic_s()
        while True:
            try:
                await self._check_hints()
                now_s = world.clock.monotonic_s()
                if now_s >= next_poll_s:
                    next_poll_s = now_s + world.poll_s
                    has_census = now_s >= next_census_s
                    await self._compare_all(has_census=has_census)
                    if has_census:
                        next_census_s = now_s + world.poll_s
                    pause_s = await cares.shortest_check_s(world.pool, world.poll_s)
                    took_s = world.clock.monotonic_s() - now_s
                    next_poll_s = now_s + max(pause_s, took_s * LOOKING_SHARE)
            except Transient as unwell:
                world.logger.info("watch.postponed", provider=self._provider.name, cause=str(unwell))
            await self._pause(next_poll_s - world.clock.monotonic_s())

    async def _pause(self, until_poll_s: float) -> None:
        """Until there is a new hint, an old one may be looked at again, or the poll is due."""
        pause_s = HINT_RETRY_S if self._hints else max(until_poll_s, HINT_RETRY_S)
        try:
            async with asyncio.timeout(pause_s):
                await self._hinted.wait()
        except TimeoutError:
            return

    # --- one machine ----------------------------------------------------------------------------------------------

    async def _check_hints(self) -> None:
        self._hinted.clear()
        hinted = list(self._hints)
        async with asyncio.TaskGroup() as group:
            for provider_machine_id in hinted:
                group.create_task(self._check_hint(provider_machine_id))

    async def _check_hint(self, provider_machine_id: str) -> None:
        """An unwell cloud or database ends neither the others nor, in a group, the whole watch: it counts as a try."""
        async with self._checks:
            hint = self._hints[provider_machine_id]
            try:
                is_settled = await self._check(provider_machine_id, hint.status)
            except Transient as unwell:
                self._world.logger.info("hint.postponed", provider=self._provider.name, cause=str(unwell))
                is_settled = False
        if self._hints.get(provider_machine_id) is not hint:
            return  # there is newer news
        if is_settled or hint.tries + 1 >= HINT_TRIES_MAX:
            del self._hints[provider_machine_id]
        else:
            self._hints[provider_machine_id] = _Hint(hint.status, hint.tries + 1)

    async def _check(self, provider_machine_id: str, told: ProviderStatus | None) -> bool:
        """Report what is different about one machine. False when the log does not know its contract yet.

        The state is read before the cloud is asked: otherwise an old observation would meet a newer state. What the
        cloud `told` saves asking when it is what we believe already.
        """
        contract = await self._contracts.get(provider_machine_id, self._fetch_contracts)
        instance_id = contract.instance_id if contract is not None else ""
        machine_id = contract.machine_id if contract is not None else ""
        if contract is None:
            observed = await self._provider.get(provider_machine_id)
            machine_id = observed.label
            instance_id = await contracts.instance_of_machine(self._world.pool, machine_id)
            if not instance_id:
                return observed.status == "gone" or not machine_id
        state: Instance | None = await self._handle.state("instance", instance_id)
        machine = None if state is None else state.machine(machine_id)
        if machine is None:
            return True  # rows know it and the state no longer does: it ended long ago
        if not machine.provider_machine_id:
            return machine.status != "requested"
        if machine.provider_machine_id != provider_machine_id:
            return True
        if told is not None and not _is_news(machine.status, told):
            return True
        observed = await self._provider.get(provider_machine_id)
        if not self._is_believed(machine, observed, told):
            return False  # looked at again with the next hints
        report = difference(instance_id, machine, observed, self._world)
        if report is not None:
            await self._report(report)
        return True

    def _is_believed(self, machine: Machine, observed: ProviderMachine, told: ProviderStatus | None) -> bool:
        """What the cloud says of a machine is believed, but for one thing: that it is not there, of which no signal
        said anything and which would cost the customer the machine."""
        key = observed.provider_machine_id
        if observed.status != "gone" or told == "gone" or machine.status in ("destroying", "lost"):
            self._missed_since.pop(key, None)
            return True
        now_s = self._world.clock.monotonic_s()
        return now_s - self._missed_since.setdefault(key, now_s) >= GONE_CONFIRM_S

    async def _fetch_contracts(self, provider_machine_ids: Sequence[str]) -> Mapping[str, Contract]:
        return await contracts.contracts_of(self._world.pool, self._provider.name, provider_machine_ids)

    async def _report(self, report: Command) -> None:
        try:
            await self._handle.execute(report, cause=f"watch.{self._provider.name}")
        except Refused as refused:
            self._world.logger.info("watch.refused", code=refused.code, report=type(report).__name__)

    # --- all machines ---------------------------------------------------------------------------------------------

    async def _compare_all(self, *, has_census: bool) -> None:
        """The poll, and at the usual pace the census, in one pass over the cloud's list."""
        listed = {machine.provider_machine_id: machine for machine in await self._provider.machines()}
        known = await contracts.contracts_at(self._world.pool, self._provider.name)
        for provider_machine_id, contract in known.items():
            if self._may_differ(contract, listed.get(provider_machine_id)):
                self._hints.setdefault(provider_machine_id, _Hint())
        self._missed_since = {key: at_s for key, at_s in self._missed_since.items() if key in self._hints}
        if has_census:
            await self._census(listed, known)
            await self._volumes.take()
        if self._hints:
            self._hinted.set()

    def _may_differ(self, contract: Contract, observed: ProviderMachine | None) -> bool:
        if observed is not None:
            return _is_news(contract.status, observed.status)
        lag = timedelta(seconds=self._provider.capabilities.list_lag_s)
        return self._world.clock.now() - contract.rented_at > lag

    async def _census(self, listed: Mapping[str, ProviderMachine], known: Mapping[str, Contract]) -> None:
        now_s = self._world.clock.monotonic_s()
        unknown = {key: m for key, m in listed.items() if key not in known and _is_ours(m)}
        self._unknown_since = {key: self._unknown_since.get(key, now_s) for key in unknown}
        patience_s = max(self._world.orphan_seen_s, self._provider.capabilities.list_lag_s)
        reported = await contracts.open_orphans(self._world.pool, self._provider.name)
        for key, since_s in self._unknown_since.items():
            if now_s - since_s >= patience_s and key not in reported and not await self._is_owned(unknown[key]):
                await self._report(orphan(self._world, self._provider.name, key, unknown[key].label))
        for key in reported:
            if key not in listed or key in known:
                await self._report(gone(self._world, self._provider.name, key))

    async def _is_owned(self, observed: ProviderMachine) -> bool:
        """By the log itself, not by rows: a machine being rented, or one whose contract is this one."""
        instance_id = await contracts.instance_of_machine(self._world.pool, observed.label)
        state: Instance | None = await self._handle.state("instance", instance_id) if instance_id else None
        machine = None if state is None else state.machine(observed.label)
        if machine is None:
            return False
        return machine.status == "requested" or (
            machine.provider_machine_id == observed.provider_machine_id and machine.has_contract
        )


def _is_ours(observed: ProviderMachine) -> bool:
    """Without our label it is the operator's, or another platform's on the same account: never ours to touch."""
    return observed.status != "gone" and bool(observed.label)


def _is_news(believed: MachineStatus, observed: ProviderStatus) -> bool:
    """Whether a machine believed to be in one status and seen in another deserves a closer look."""
    match believed:
        case "rented":
            return observed in ("running", "exited", "failed", "gone")
        case "booted" | "healthy" | "stopping":
            return observed in _OFF or observed == "gone"
        case "stopped" | "destroying" | "lost":
            return observed == "gone"
        case _:
            return False


def difference(instance_id: str, machine: Machine, observed: ProviderMachine, world: World) -> Command | None:
    """The report that follows from what the cloud says about a machine, if it is news.

    `stopped` says nothing about a machine being started: the cloud may not have begun yet.
    """
    if not _is_news(machine.status, observed.status):
        return None
    now, machine_id = world.clock.now(), machine.machine_id
    if observed.status == "running":
        return ReportBooted(now=now, instance_id=instance_id, machine_id=machine_id, endpoints=observed.endpoints)
    if machine.status == "rented" and observed.status == "failed":
        return ReportFailed(
            now=now,
            instance_id=instance_id,
            machine_id=machine_id,
            stage="loading",
            code="STARTUP_FAILED",
            reason=observed.detail or "the provider says that it failed",
        )
    report = ReportDestroyed if observed.status == "gone" else ReportStopped
    fallback = "host_failure" if observed.status == "failed" else "provider_lost"
    return report(
        now=now,
        instance_id=instance_id,
        machine_id=machine_id,
        reason=observed.interruption or fallback,
        detail=observed.detail,
    )
