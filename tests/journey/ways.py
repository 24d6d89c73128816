"""The ways in which an instance loses its machine and goes on, as rounds that can be repeated and disturbed.

Used by `phases`. Each says at which boundaries somebody may be killed, how a round begins, when it is over, and what
its cloud may have then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from tests.journey.patient import START_COMMAND, STARTED, Boundary, Patient, looks

SYNC_INTERVAL_S = 1
NOTE = "notes.txt"  # written anew in each round, just before the loss, where nothing may be missing


@dataclass(frozen=True)
class Way:
    """`starts`: so many machines run the start command in a round. `machines` and `volumes`: what the cloud has of it
    when a round is over. `without_agents`: boundaries at which no machine of it runs."""

    name: str
    boundaries: tuple[Boundary, ...]
    admit: Callable[[Patient], Awaitable[None]]
    strike: Callable[[Patient], Awaitable[None]]
    over: Callable[[Patient, int], Awaitable[None]]
    starts: int
    machines: int
    volumes: int
    without_agents: tuple[str, ...] = ()


async def _lose(patient: Patient) -> None:
    await patient.write(NOTE, f"work done before fact {len(patient.heard.facts)}".encode())
    await patient.lose()


# --- a standby on the same host, with the same volume -----------------------------------------------------------------


async def _admit_to_pool(patient: Patient) -> None:
    await patient.admit(onstart_cmd=START_COMMAND)
    await patient.granted("POST", "/warmpool/provision", {"machine_id": patient.instance_id, "mode": "hot"})
    await patient.noted("guard", _POOL_READY, 0)


async def _pool_over(patient: Patient, failover_seq: int) -> None:
    await patient.fact("failover.completed")
    await patient.noted("guard", _POOL_READY, failover_seq)
    await patient.fact("warmpool.provisioned")


_POOL_READY = b'"readiness":"ready"'


# --- a volume of the region, handed to a new machine ------------------------------------------------------------------


async def _admit_to_volume(patient: Patient) -> None:
    await patient.admit(failover_strategy="regional_volume", onstart_cmd=START_COMMAND)
    path = f"/failover/readiness/{patient.instance_id}"
    await patient.until(path, lambda seen: seen["regional_volume_ready"], "ready")


async def _move(patient: Patient) -> None:
    """Its machine works; somebody wishes another one, and the volume is detached and attached."""
    await patient.write(NOTE, f"work done before fact {len(patient.heard.facts)}".encode())
    await patient.acknowledged("/failover/execute", {"machine_id": patient.instance_id})


async def _volume_over(patient: Patient, failover_seq: int) -> None:
    del failover_seq
    await patient.fact("failover.completed")
    await patient.fact("instance.migrated")


# --- a CPU standby that takes over, and the way back to a GPU ---------------------------------------------------------


async def _admit_to_cpu_standby(patient: Patient) -> None:
    await patient.admit(onstart_cmd=START_COMMAND)
    await patient.granted("POST", "/standby/configure", {"sync_interval": SYNC_INTERVAL_S, "auto_recovery": True})
    await patient.granted("POST", f"/standby/provision/{patient.instance_id}", {})
    path = f"/failover/readiness/{patient.instance_id}"
    await patient.until(path, lambda seen: seen["cpu_standby_ready"], "ready")
    await _in_sync(patient)


async def _return_over(patient: Patient, failover_seq: int) -> None:
    """The CPU machine stands by again, and what was started on the GPU machine has come to it."""
    del failover_seq
    await patient.fact("standby.returned")
    await patient.fact("instance.standby_ready")
    await _in_sync(patient)


async def _in_sync(patient: Patient) -> None:
    """Its CPU standby has the lines that the start commands wrote, the one on the GPU machine too."""
    association = await patient.until(
        f"/standby/associations/{patient.instance_id}", lambda seen: seen["state"] == "ready", "in sync"
    )
    standby = patient.folder(await patient.machine_named(association["cpu_standby"]["name"])) / "workspace"
    workspace = await patient.workspace()
    async for _ in looks():
        if _same_lines(workspace / STARTED, standby / STARTED):
            return
    raise AssertionError(f"{standby / STARTED} is not as {workspace / STARTED}")


def _same_lines(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _boundaries(*names: str) -> tuple[Boundary, ...]:
    return tuple(Boundary(name) for name in names)


_FAILOVER = ("failover.rung_tried", "instance.recovering", "instance.ready", "failover.completed")
_RETURN = ("standby.return_wanted", "standby.returning", "standby.handover_requested", "standby.handed_over")
WAYS = (
    Way(
        "warm_pool",
        _boundaries(
            "instance.interrupted",
            "failover.rung_tried",
            "warmpool.claimed",
            "instance.recovering",
            "instance.ready",
            "failover.completed",
        ),
        _admit_to_pool,
        _lose,
        _pool_over,
        starts=1,
        machines=2,
        volumes=1,
    ),
    Way(
        "regional_volume",
        _boundaries("instance.interrupted", *_FAILOVER),
        _admit_to_volume,
        _lose,
        _volume_over,
        starts=1,
        machines=1,
        volumes=1,
        without_agents=("instance.interrupted", "failover.rung_tried", "instance.recovering"),
    ),
    Way(
        "volume_moved",
        _boundaries("failover.started", *_FAILOVER),
        _admit_to_volume,
        _move,
        _volume_over,
        starts=1,
        machines=1,
        volumes=1,
        without_agents=("instance.recovering",),
    ),
    Way(
        "cpu_and_back",
        (
            *_boundaries("instance.interrupted", *_FAILOVER, *_RETURN),
            Boundary("instance.ready", 2),
            Boundary("standby.returned"),
        ),
        _admit_to_cpu_standby,
        Patient.lose,
        _return_over,
        starts=2,
        machines=2,
        volumes=0,
    ),
)
