"""The cloud's rule: how each machine gets from what it is to what its customer wants.

Used by `routes` (wishes) and `__main__` (life of the daemon). A wish only changes `wanted`; one driver task per moving
machine takes the steps one after another, so no two of them ever overlap. Every change of status is saved before it is
told. Killing the daemon at any point leaves records from which the next one goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

from libs.clock import Clock
from libs.ids import Ids
from libs.telemetry.log import logger
from services.sandbox.bills import Bills, machine_item
from services.sandbox.carriers import Carrier
from services.sandbox.faults import Faults
from services.sandbox.machine import Machine
from services.sandbox.market import Market
from services.sandbox.news import NewsRoom
from services.sandbox.options import Options
from services.sandbox.orders import Refusal, check_order, record_of, view_of
from services.sandbox.records import Record, Records, Volume, Wanted
from services.sandbox.volumes import Volumes
from services.sandbox.wire import CreateBody, InterruptionReason, MachineStatus, MachineView, OfferView, ShareBody
from services.sandbox.zygote import BootFailed

SECONDS_PER_HOUR = 3600.0
# What a destroy or an interrupt waits for; a machine is killed in tens of milliseconds.
SETTLE_TIMEOUT_S = 20.0
log = logger("sandbox")


class Cloud:
    """All machines of this sandbox."""

    def __init__(
        self,
        options: Options,
        *,
        records: Records,
        carrier: Carrier,
        volumes: Volumes,
        bills: Bills,
        news: NewsRoom,
        clock: Clock,
        ids: Ids,
        free_user: Callable[[Iterable[int]], int],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.options = options
        self.market = Market(options)
        self.faults = Faults(options)
        self.volumes = volumes
        self.bills = bills
        self.news = news
        self._records = records
        self._carrier = carrier
        self._clock = clock
        self._ids = ids
        self._free_user = free_user
        self._tasks = tasks
        self._luck = Random(options.seed)  # noqa: S311 - a simulated market, not a secret
        self._machines: dict[str, Machine] = {}
        self._labels: dict[str, str] = {}
        self._closing = False

    # The life of the daemon

    async def open(self) -> None:
        """Take up every machine that the records know: adopt the living, bring back those that were put to sleep."""
        for record in self._records.load():
            machine = self._enter(record)
            if record.slot_held:
                self.market.hold(record.host_id, record.slots)
            if record.suspended:
                record.suspended = False
                self._become(machine, "creating", "coming back after a restart of the cloud")
            elif record.status in ("creating", "running"):
                await self._take_up(machine)
            self._drive(machine)
        self.volumes.restore(machine.record for machine in self._machines.values())

    async def close(self) -> None:
        """Put every machine to sleep and return when no process of any is left."""
        self._closing = True
        machines = list(self._machines.values())
        drivers = [machine.driver for machine in machines if machine.driver is not None]
        for driver in drivers:
            driver.cancel()
        await asyncio.gather(*drivers, return_exceptions=True)
        await asyncio.gather(*(self._put_to_sleep(machine) for machine in machines))

    async def _take_up(self, machine: Machine) -> None:
        record = machine.record
        if await self._carrier.adopt(record):
            self._up(machine)
        elif record.status == "running":
            machine.ended = True

    async def _put_to_sleep(self, machine: Machine) -> None:
        record = machine.record
        self._no_preemption(machine)
        if record.wanted == "running" and record.status in ("creating", "running"):
            record.suspended = True
        if record.status in ("creating", "running", "stopping"):
            await self._carrier.halt(record, grace_s=self.options.stop_grace_ms / 1000)
            self._records.save(record)

    # Wishes

    def offers(self) -> list[OfferView]:
        return self.market.offers(self._now())

    async def create(self, body: CreateBody) -> tuple[Record, bool]:
        """Rent. Returns the machine and whether it is new; the same label gives the same machine. Raises Refusal."""
        known = self._labels.get(body.label)
        if known is not None:
            return self._machines[known].record, False
        lot, volume = check_order(body, self.market, self.volumes)
        price = self.market.price(lot.host, lot.billing, self._now()) * lot.gpu_count
        if 0 < body.price_usd_micros_per_hour_max < price:
            raise Refusal("offer_gone", f"{body.offer_id} costs more than the order allows now")
        user_id = self._free_user(machine.record.user_id for machine in self._machines.values())
        if not self.market.take(lot.host.host_id, lot.gpu_count, self._now()):
            raise Refusal("offer_gone", f"{body.offer_id} cannot be rented now")
        record = record_of(
            body,
            lot,
            machine_id=self._ids.fresh("sbx"),
            price_usd_micros_per_hour=price,
            created_at=self._now(),
            user_id=user_id,
        )
        machine = self._enter(record)
        if volume is not None:
            self.volumes.attach(volume, record.machine_id)
        self._become(machine, "creating", "")
        self._drive(machine)
        await asyncio.sleep(0)  # a machine without delay and processes is up when its order is answered
        return record, True

    def list(self, label: str = "", after: str = "") -> Iterator[Record]:
        """The machines a listing knows by now (`list_lag_ms`) whose ids come after this one, by id: oldest first."""
        seen_before = self._now() - self.faults.list_lag_ms / 1000
        found = sorted(self._machines) if not label else [self._labels[label]] if label in self._labels else []
        records = (self._machines[machine_id].record for machine_id in found if machine_id > after)
        return (record for record in records if record.created_at <= seen_before)

    def get(self, machine_id: str) -> Record:
        return self._machine(machine_id).record

    async def start(self, machine_id: str) -> Record:
        """Boot a stopped machine again. Its GPU was given back and may be gone: Refusal `offer_gone`."""
        machine = self._machine(machine_id)
        record = machine.record
        if (
            record.wanted in ("exited", "destroyed")
            or record.status == "failed"
            or record.interruption == "spot_preemption"
        ):
            raise Refusal("machine_lost", f"{machine_id} cannot be started again")
        if record.wanted == "running" and record.status in ("creating", "running"):
            return record
        if not record.slot_held:
            if not self.market.take(record.host_id, record.slots, self._now()):
                raise Refusal("offer_gone", f"{record.host_id} has no free slot for {machine_id}")
            record.slot_held = True
        record.interruption = None
        self._want(machine, "running")
        await asyncio.sleep(0)  # the driver's first step: the answer already says `creating`
        return record

    async def stop(self, machine_id: str) -> Record:
        """Take it down in order; its files stay, its GPU is given back."""
        machine = self._machine(machine_id)
        if machine.record.status != "failed" and machine.record.wanted == "running":
            self._want(machine, "stopped")
            await asyncio.sleep(0)
        return machine.record

    async def destroy(self, machine_id: str) -> None:
        """Give it back: returns when its processes and files are gone. Raises Refusal when it is unknown."""
        machine = self._machine(machine_id)
        self._want(machine, "destroyed")
        await self._settled(machine)

    async def interrupt(self, machine_id: str, reason: InterruptionReason) -> None:
        """Take it away from its customer: everything in it is killed and its files are gone when this returns."""
        machine = self._machine(machine_id)
        if machine.record.wanted in ("exited", "destroyed"):
            return
        log.info("machine.taken_away", machine_id=machine_id, reason=reason)
        machine.record.interruption = reason
        self._want(machine, "destroyed" if reason == "provider_lost" else "exited")
        await self._settled(machine)

    async def share(self, machine_id: str, wish: ShareBody) -> Volume:
        """Make a machine's workspace a volume that others on its host can have. One that has a volume keeps it."""
        record = self._machine(machine_id).record
        if record.wanted in ("exited", "destroyed"):
            raise Refusal("machine_lost", f"{machine_id} has no files any more")
        known = self.volumes.find(record.volume_id)
        if known is not None:
            return known
        volume = self.volumes.create(wish.on(record.host_id), self._now())
        await self._carrier.share(record, volume)
        record.volume_id = volume.volume_id
        self.volumes.attach(volume, machine_id)
        self._records.save(record)
        return volume

    def show_gpus(self, machine_id: str, percents: Sequence[int]) -> None:
        self._carrier.show_gpus(self._machine(machine_id).record, percents)

    def view(self, record: Record) -> MachineView:
        return view_of(record, "" if record.ssh_public_keys else self._carrier.ssh_key_path)

    def counts(self) -> dict[str, int]:
        return dict(Counter(machine.record.status for machine in self._machines.values()))

    # Steps

    def _drive(self, machine: Machine) -> None:
        if machine.driver is None and not self._closing:
            machine.driver = self._tasks.create_task(self._move(machine))

    async def _move(self, machine: Machine) -> None:
        """Take steps until the machine is where it is wanted."""
        try:
            while await self._step(machine):
                pass
        finally:
            machine.driver = None

    async def _step(self, machine: Machine) -> bool:
        """One step; False when there is nothing to do."""
        machine.changed.clear()
        record = machine.record
        match (record.wanted, record.status):
            case ("running", "creating"):
                await self._boot(machine)
            case ("running", "running") if machine.ended:
                await self._note_end(machine)
            case ("running", "stopping" | "stopped" | "exited") if record.slot_held:
                self._become(machine, "creating", "")
            case ("stopped", "creating" | "running"):
                self._become(machine, "stopping", "")
            case ("stopped", "stopping"):
                await self._halt(machine, grace_s=self.options.stop_grace_ms / 1000)
                if record.wanted == "stopped":
                    self._give_back(record)
                    self._become(machine, "stopped", "")
            case ("exited", status) if status != "exited":
                await self._halt(machine, grace_s=0)
                await self._carrier.wipe(record)
                self._give_back(record)
                self._become(machine, "exited", f"taken away: {record.interruption}")
            case ("destroyed", _):
                await self._forget(machine)
                return False
            case _:
                return False
        return True

    async def _boot(self, machine: Machine) -> None:
        record = machine.record
        luck = self.faults.boot(self._luck, self._now())
        if luck.delay_s > 0 and await self._wanted_otherwise(machine, luck.delay_s):
            return
        if luck.fails:
            self._fail(machine, "boot failed: image could not be pulled")
            return
        try:
            await self._carrier.boot(record, self.volumes.find(record.volume_id), unwell_until=luck.unwell_until)
        except BootFailed as failure:
            self._fail(machine, str(failure))
            return
        self._up(machine)

    def _up(self, machine: Machine) -> None:
        record = machine.record
        machine.ended = False
        self._become(machine, "running", "")

        def ended() -> None:
            machine.ended = True
            self._drive(machine)

        self._carrier.watch(record, ended)
        rate = self.options.preemptions_per_hour
        if rate > 0 and record.billing == "spot":
            delay_s = self._luck.expovariate(rate / SECONDS_PER_HOUR)
            loop = asyncio.get_running_loop()
            machine.preemption = loop.call_later(delay_s, self._preempt, machine)

    def _preempt(self, machine: Machine) -> None:
        if machine.record.wanted == "running":
            log.info("machine.taken_away", machine_id=machine.record.machine_id, reason="spot_preemption")
            machine.record.interruption = "spot_preemption"
            self._want(machine, "exited")

    async def _note_end(self, machine: Machine) -> None:
        """Its leader ended by itself: clear up the rest. The files stay."""
        record = machine.record
        in_order = self._carrier.ended_in_order(record)
        await self._halt(machine, grace_s=0)
        machine.ended = False
        if record.wanted != "running":
            return
        record.interruption = None if in_order else "host_failure"
        record.wanted = "stopped"
        self._give_back(record)
        self._become(machine, "exited", "shut itself down" if in_order else "its leading process was killed")

    async def _halt(self, machine: Machine, *, grace_s: float) -> None:
        self._no_preemption(machine)
        await self._carrier.halt(machine.record, grace_s=grace_s)

    def _fail(self, machine: Machine, detail: str) -> None:
        machine.record.wanted = "stopped"
        self._give_back(machine.record)
        self._become(machine, "failed", detail)

    async def _forget(self, machine: Machine) -> None:
        record = machine.record
        await self._halt(machine, grace_s=0)
        await self._carrier.wipe(record)
        self._give_back(record)
        self.volumes.detach(record.volume_id, record.machine_id)
        self._records.forget(record.machine_id)
        self.bills.note(machine_item(record), self._now(), is_on=False)
        del self._machines[record.machine_id]
        if self._labels.get(record.label) == record.machine_id:
            del self._labels[record.label]
        self.news.tell(record.machine_id, "gone")
        log.info("machine.destroyed", machine_id=record.machine_id)

    async def _wanted_otherwise(self, machine: Machine, delay_s: float) -> bool:
        """Wait, but no longer than the customer wants the same. True when he changed his mind."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await machine.changed.wait()
        return machine.changed.is_set()

    async def _settled(self, machine: Machine) -> None:
        if machine.driver is not None:
            await asyncio.wait([machine.driver], timeout=SETTLE_TIMEOUT_S)

    # Memory

    def _enter(self, record: Record) -> Machine:
        machine = Machine(record)
        self._machines[record.machine_id] = machine
        self._labels[record.label] = record.machine_id
        return machine

    def _machine(self, machine_id: str) -> Machine:
        machine = self._machines.get(machine_id)
        if machine is None:
            raise Refusal("machine_unknown", f"there is no machine {machine_id}")
        return machine

    def _want(self, machine: Machine, wanted: Wanted) -> None:
        machine.record.wanted = wanted
        self._records.save(machine.record)
        machine.changed.set()
        self._drive(machine)

    def _become(self, machine: Machine, status: MachineStatus, detail: str) -> None:
        record = machine.record
        record.status, record.detail = status, detail
        self._records.save(record)
        self.bills.note(machine_item(record), self._now(), is_on=status == "running")
        self.news.tell(record.machine_id, status)

    def _give_back(self, record: Record) -> None:
        if record.slot_held:
            record.slot_held = False
            self.market.give_back(record.host_id, record.slots)

    def _no_preemption(self, machine: Machine) -> None:
        if machine.preemption is not None:
            machine.preemption.cancel()
            machine.preemption = None

    def _now(self) -> float:
        return self._clock.now().timestamp()
