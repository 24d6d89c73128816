"""The story: an instance loses its machine, once for every rung of the ladder that this platform has.

Called by `verb`. An act is only played when the platform says that its strategy is available (`GET
/failover/strategies`); what is not there is neither shown nor claimed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from msgspec import Struct

from libs.clock import SystemClock
from services.cli.demo.beside import beside
from services.cli.demo.proofs import Evidence, Proof, prove
from services.cli.demo.stage import WAIT_S_MAX, Stage
from services.cli.demo.timeline import Moment, Timeline
from services.cli.demo.workspace import FILES, Workspace
from services.cli.exits import Exit

GPU = "RTX 4090"
AFTER_COPY = 30  # files that are in no snapshot, or not yet synced, when the machine is taken
SYNC_INTERVAL_S = 2
OVER = ("failover.completed", "failover.failed")


class Result(Struct, frozen=True):
    """One act: what it took, and what must hold of it."""

    act: str
    instance_id: str
    strategy: str
    detection_ms: int
    recovery_ms: int
    data_loss_window_s: int
    measured_loss_s: float
    files_written: int
    files_intact: int
    machine_before: str
    machine_after: str
    events: list[Moment]
    phases: dict[str, int]
    proofs: list[Proof]

    @property
    def holds(self) -> bool:
        return all(proof.holds for proof in self.proofs)


class Show(Struct, frozen=True):
    """Everything that was shown. `holds`: every proof of every act."""

    started_in_s: float
    took_s: float
    holds: bool
    acts: list[Result]


class Audience(Protocol):
    """Whoever is told what happens, as it happens."""

    def tell(self, text: str) -> None: ...
    def act(self, title: str) -> None: ...
    def moment(self, moment: Moment) -> None: ...
    def proof(self, proof: Proof) -> None: ...


@dataclass(frozen=True)
class Act:
    """`prepare` brings the instance to where this rung is the one that helps; `title` says what is lost.

    `at_work`: what to wait for while files are being written, before the loss. `wish`: what the create says besides.
    """

    strategy: str
    title: str
    prepare: Callable[[Company], Awaitable[None]]
    at_work: Callable[[Company], Awaitable[None]] | None = None
    wish: dict[str, str] = field(default_factory=dict[str, str])


@dataclass
class Company:
    """Who plays: the platform, the instance and its files."""

    stage: Stage
    audience: Audience
    workspace: Workspace
    timeline: Timeline
    instance_id: str = ""

    async def instance(self) -> dict[str, Any]:
        return await self.stage.until(
            f"/instances/{self.instance_id}", lambda seen: seen["status"] == "running", "a running instance"
        )


async def perform(stage: Stage, wanted: list[str], audience: Audience) -> Show:
    """Every wanted act whose strategy is available. Exits when there is none, or when something does not come about."""
    began_s = time.monotonic()
    available = {
        one["id"] for one in (await stage.ask("GET", "/failover/strategies"))["strategies"] if one["available"]
    }
    acts = [ACTS[name] for name in wanted if ACTS[name].strategy in available]
    if not acts:
        raise Exit("this platform has none of the strategies that were asked for")
    audience.tell(f"A platform of its own at {stage.url}, ready in {stage.started_in_s:.1f} s.")
    timeline = Timeline(stage, audience.moment)
    async with beside(timeline.follow):
        results = [await _play(Company(stage, audience, Workspace(), timeline), act) for act in acts]
    return Show(
        started_in_s=round(stage.started_in_s, 3),
        took_s=round(time.monotonic() - began_s, 3),
        holds=all(result.holds for result in results),
        acts=results,
    )


async def _open(company: Company, more: dict[str, str]) -> None:
    """An instance with files in it."""
    began_s = time.monotonic()
    wish = {"gpu": GPU, "ssh_key": company.workspace.public_key, "label": "demo", **more}
    company.instance_id = (await company.stage.ask("POST", "/instances", wish))["id"]
    instance = await company.instance()
    company.audience.tell(
        f"{company.instance_id} runs on {instance['provider_instance_id']} ({instance['gpu_name']}, "
        f"{instance['host_id']}) after {time.monotonic() - began_s:.1f} s."
    )
    written_bytes = await company.workspace.fill(instance)
    company.audience.tell(f"{FILES} files, {written_bytes / 1e6:.1f} MB, written over SFTP.")


async def _play(company: Company, act: Act) -> Result:
    audience, stage = company.audience, company.stage
    audience.act(act.title)
    await _open(company, act.wish)
    await act.prepare(company)
    before = await company.instance()
    begun = asyncio.Event()
    async with beside(lambda ready: company.workspace.keep_writing(before, ready), started=begun):
        if act.at_work is not None:
            await act.at_work(company)
        taken_at_s = SystemClock().now().timestamp()
        company.timeline.begin(taken_at_s, company.instance_id)
        machine = before["provider_instance_id"]
        audience.moment(Moment(0, "demo", "takes the machine away", f"{machine}: processes killed, files deleted"))
        await stage.take_away(machine)
        over = await company.timeline.until(*OVER, timeout_s=WAIT_S_MAX)
    if over is None:
        raise Exit(f"no failover of {company.instance_id} was over within {WAIT_S_MAX:.0f} s")
    failover = await stage.until(f"/failovers/{over.failover_id}", lambda seen: seen["success"] is not None, "its end")
    after = await company.instance()
    timings = ", ".join(f"{phase} {took} ms" for phase, took in failover["phase_timings_ms"].items())
    audience.tell(f"Phases: {timings or 'none'}.")
    if not failover["success"]:
        raise Exit(f"the failover failed: {failover['error']}; attempts {failover['attempts']}")
    compared = await company.workspace.compare(after, taken_at_s)
    evidence = Evidence(
        strategy=act.strategy,
        before=before,
        after=after,
        failover=failover,
        compared=compared,
        goes_on=await company.workspace.goes_on(after),
        machines=await stage.machines(),
        events=company.timeline.moments,
    )
    proofs = prove(evidence)
    for proof in proofs:
        audience.proof(proof)
    detected = company.timeline.first("instance.interrupted")
    company.timeline.rest()
    await stage.ask("DELETE", f"/instances/{company.instance_id}")
    return Result(
        act=act.title,
        instance_id=company.instance_id,
        strategy=failover["strategy_succeeded"],
        detection_ms=detected.after_ms if detected else -1,
        recovery_ms=over.after_ms,
        data_loss_window_s=failover["data_loss_window_s"],
        measured_loss_s=round(compared.loss_s, 3),
        files_written=compared.written,
        files_intact=compared.intact,
        machine_before=before["provider_instance_id"],
        machine_after=after["provider_instance_id"],
        events=company.timeline.moments,
        phases=failover["phase_timings_ms"],
        proofs=proofs,
    )


# --- how each act is prepared -------------------------------------------------------------------------------------


async def _warm_pool(company: Company) -> None:
    """A second GPU on the same host, hot, with the same volume."""
    stage, instance_id = company.stage, company.instance_id
    began_s = time.monotonic()
    await stage.ask("POST", "/warmpool/provision", {"machine_id": instance_id, "mode": "hot"})
    pool = await stage.until(f"/warmpool/status/{instance_id}", lambda seen: seen["state"] == "active", "a warm pool")
    await stage.until(f"/failover/readiness/{instance_id}", lambda seen: seen["warm_pool_ready"], "readiness")
    standby = pool.get("standby_gpu_id") or "a standby"
    company.audience.tell(f"{standby} stands by on the same host after {time.monotonic() - began_s:.1f} s.")


async def _cpu_standby(company: Company) -> None:
    """No second GPU: a small machine elsewhere is kept in sync over SFTP."""
    stage, instance_id = company.stage, company.instance_id
    began_s = time.monotonic()
    await _use_every_rung(company)
    await stage.ask("POST", "/standby/configure", {"sync_interval": SYNC_INTERVAL_S, "auto_recovery": False})
    await stage.ask("POST", f"/standby/provision/{instance_id}", {})
    await stage.ask("POST", "/standby/configure", {"enabled": False, "auto_recovery": False})  # the next act has none
    path = f"/standby/associations/{instance_id}"
    found = await stage.until(path, lambda seen: seen["state"] == "ready", "a CPU standby in sync")
    company.audience.tell(
        f"{found['cpu_standby']['name']}, a CPU machine, is in sync after {time.monotonic() - began_s:.1f} s; "
        f"what has changed follows every {SYNC_INTERVAL_S} s."
    )


async def _some_unsynced(company: Company) -> None:
    """Some of what is being written is on the standby then, and some is not."""
    await asyncio.sleep(SYNC_INTERVAL_S)
    await company.workspace.until_written(AFTER_COPY)


async def _volume(company: Company) -> None:
    """No standby of any kind: all that there is beside the machine is the volume that has its workspace."""
    kept = (await company.instance())["volume"]
    company.audience.tell(f"No standby. The workspace is on {kept['volume_id']}, a volume of {kept['region']}.")


async def _nothing_but_storage(company: Company) -> None:
    """No standby of any kind, no volume: all that there is beside the machine are its snapshots."""
    stage, instance_id = company.stage, company.instance_id
    await _use_every_rung(company)
    taken = await stage.until(f"/instances/{instance_id}/snapshots", lambda seen: bool(_newest(seen)), "a snapshot")
    newest = next(snapshot for snapshot in taken if snapshot["status"] == "completed")
    company.audience.tell(
        f"No standby, no volume. {newest['files']} files are in a snapshot; the next is taken every 3 s."
    )


async def _next_snapshot(company: Company) -> None:
    """Some of what is being written is in storage then, and some is not."""
    path = f"/instances/{company.instance_id}/snapshots"
    before = _newest(await company.stage.ask("GET", path))
    await company.stage.until(path, lambda seen: _newest(seen) not in ("", before), "the next snapshot")
    await company.workspace.until_written(AFTER_COPY)


def _newest(snapshots: list[dict[str, Any]]) -> str:
    """The id of the newest that is complete, empty when there is none."""
    return next((snapshot["snapshot_id"] for snapshot in snapshots if snapshot["status"] == "completed"), "")


async def _use_every_rung(company: Company) -> None:
    settings = {"use_global_settings": False, "strategy": "all"}
    await company.stage.ask("PUT", f"/failover/settings/machines/{company.instance_id}", settings)


ACTS: dict[str, Act] = {
    "warm-pool": Act("warm_pool", "The machine is taken; a warm pool stands by", _warm_pool),
    "cpu-standby": Act(
        "cpu_standby", "The machine is taken; a CPU machine elsewhere is in sync", _cpu_standby, _some_unsynced
    ),
    "regional-volume": Act(
        "regional_volume",
        "Everything is taken but a volume of the region",
        _volume,
        wish={"failover_strategy": "regional_volume"},
    ),
    "cloud-storage": Act(
        "cloud_storage", "Everything is taken; there are snapshots in storage", _nothing_but_storage, _next_snapshot
    ),
}
