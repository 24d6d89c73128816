"""What holds for every sequence of wishes: twice is once, one primary, and no contract is ever forgotten."""

from __future__ import annotations

from hypothesis import strategies as st

from libs.ids import derive_id
from libs.spec.properties import every_command_twice_is_once
from proto.instance.commands import (
    AbandonHibernation,
    CreateInstance,
    DeleteInstance,
    ExpireInstance,
    GiveUpMachine,
    GiveUpSnapshot,
    HibernateInstance,
    KeepAlive,
    MarkUsed,
    PromoteMachine,
    ReleaseStandby,
    ReplaceMachine,
    ReportBooted,
    ReportBusy,
    ReportDestroyed,
    ReportFailed,
    ReportHealthy,
    ReportIdle,
    ReportRented,
    ReportRestored,
    ReportSilence,
    ReportSnapshot,
    ReportSnapshotChecked,
    ReportSnapshotFailed,
    ReportStartRefused,
    ReportStopped,
    ReportVolumeShared,
    RequestSnapshot,
    RequestStandby,
    StartInstance,
    StopIfIdle,
    StopInstance,
    SuspendInstance,
    WishVolume,
)
from proto.instance.words import Volume, VolumeWish
from services.instance.decider import INSTANCE
from services.instance.decider.instance import HIBERNATION, InstanceState
from services.instance.decider.machine_state import LIVE
from tests.spec.instance.controls import ACCOUNT, INSTANCE_ID, NOW, OFFER, OTHER_ACCOUNT, SPEC, minutes

SNAPSHOTS = st.sampled_from(["snap_1", "snap_2"])
COPIES = st.integers(1, 3).map(lambda number: derive_id("snap", INSTANCE_ID, HIBERNATION, str(number)))
MACHINES = st.sampled_from(["mach_1", "mach_2", "mach_3"])
ACCOUNTS = st.sampled_from([ACCOUNT, ACCOUNT, ACCOUNT, OTHER_ACCOUNT])
COMMON = {"now": st.just(NOW), "instance_id": st.just(INSTANCE_ID)}
OFFERS = st.sampled_from([(OFFER,), (OFFER,), ()])
REQUESTED = st.booleans()

INSTANCE_COMMANDS = st.one_of(
    st.builds(
        CreateInstance,
        **COMMON,
        account_id=ACCOUNTS,
        name=st.just("my-instance"),
        spec=st.just(SPEC),
        machine_id=MACHINES,
        offers=OFFERS,
        auto_stop_minutes=st.sampled_from([0, 20]),
        request_hash=st.sampled_from(["", "other"]),
    ),
    st.builds(StartInstance, **COMMON, account_id=ACCOUNTS, machine_id=MACHINES, offers=OFFERS),
    st.builds(StopInstance, **COMMON, account_id=ACCOUNTS),
    st.builds(DeleteInstance, **COMMON, account_id=ACCOUNTS),
    st.builds(
        MarkUsed,
        **COMMON,
        account_id=ACCOUNTS,
        used_at=st.integers(-600_000, 600_000).map(minutes),
    ),
    st.builds(KeepAlive, **COMMON, account_id=ACCOUNTS, minutes=st.sampled_from([0, 1, 30, 1440])),
    st.builds(
        ReportRented,
        **COMMON,
        machine_id=MACHINES,
        provider=st.just("sandbox"),
        provider_machine_id=st.sampled_from(["sb_1", "sb_2", "sb_3"]),
        offer=st.just(OFFER),
        has_volume=st.booleans(),
        volume=st.sampled_from([None, Volume("vol_9", "sandbox", "", 50, region=OFFER.region, name="mach_1")]),
    ),
    st.builds(ReportBooted, **COMMON, machine_id=MACHINES, endpoints=st.just(())),
    st.builds(ReportHealthy, **COMMON, machine_id=MACHINES),
    st.builds(
        ReportFailed,
        **COMMON,
        machine_id=MACHINES,
        stage=st.sampled_from(["creating", "connecting"]),
        code=st.just("STARTUP_FAILED"),
        reason=st.just("x"),
    ),
    st.builds(ReportStartRefused, **COMMON, machine_id=MACHINES, requested_at=st.just(NOW), offers=OFFERS),
    st.builds(ReportStopped, **COMMON, machine_id=MACHINES, requested=REQUESTED),
    st.builds(ReportDestroyed, **COMMON, machine_id=MACHINES, requested=REQUESTED),
    st.builds(HibernateInstance, **COMMON, account_id=ACCOUNTS, has_storage=st.just(True)),
    st.builds(ExpireInstance, **COMMON, account_id=ACCOUNTS, reason=st.just("insufficient_balance")),
    st.builds(
        SuspendInstance,
        **COMMON,
        account_id=ACCOUNTS,
        reason=st.just("insufficient_balance"),
        balance_usd_micros=st.sampled_from((-1, 1)),
        has_storage=st.booleans(),
    ),
    st.builds(
        ReportIdle,
        now=st.sampled_from([minutes(10), minutes(20), minutes(40)]),
        instance_id=st.just(INSTANCE_ID),
        machine_id=MACHINES,
        idle_since=st.just(NOW),
        idle_s=st.just(900),
        notice_s=st.just(300),
    ),
    st.builds(ReportBusy, **COMMON, machine_id=MACHINES, reason=st.just("in_use")),
    st.builds(ReportSnapshotChecked, **COMMON, snapshot_id=COPIES, is_whole=st.booleans(), has_added=st.booleans()),
    st.builds(AbandonHibernation, **COMMON, snapshot_id=COPIES),
    st.builds(GiveUpMachine, **COMMON, machine_id=MACHINES),
    st.builds(StopIfIdle, **COMMON),
    st.builds(
        RequestStandby,
        **COMMON,
        machine_id=MACHINES,
        primary_machine_id=MACHINES,
        host_id=st.just("host_1"),
        mode=st.sampled_from(["hot", "stopped"]),
        volume_gb=st.just(50),
        offers=OFFERS,
    ),
    st.builds(ReleaseStandby, **COMMON, machine_id=MACHINES),
    st.builds(
        PromoteMachine,
        **COMMON,
        machine_id=MACHINES,
        replaces=MACHINES,
        failover_id=st.sampled_from(["fo_1", "fo_2"]),
        give_up_at=st.just(minutes(10_000)),
    ),
    st.builds(
        ReportVolumeShared,
        **COMMON,
        provider=st.just("sandbox"),
        host_id=st.just("host_1"),
        volume_id=st.just("vol_1"),
        size_gb=st.just(50),
    ),
    st.builds(
        ReplaceMachine,
        **COMMON,
        machine_id=MACHINES,
        replaces=MACHINES,
        failover_id=st.sampled_from(["fo_1", "fo_2"]),
        give_up_at=st.just(minutes(10_000)),
        rung=st.sampled_from(["cloud_storage", "regional_volume"]),
        offers=OFFERS,
    ),
    st.builds(WishVolume, **COMMON, account_id=ACCOUNTS, volume=st.sampled_from([None, VolumeWish(50)])),
    st.builds(
        RequestSnapshot,
        **COMMON,
        snapshot_id=SNAPSHOTS,
        reason=st.sampled_from(["scheduled", "user_request"]),
        account_id=st.sampled_from(["", ACCOUNT, OTHER_ACCOUNT]),
        has_storage=st.sampled_from([True, True, True, False]),
    ),
    st.builds(
        ReportSnapshot,
        **COMMON,
        machine_id=MACHINES,
        generation=st.integers(1, 3),
        snapshot_id=SNAPSHOTS,
        captured_at=st.just(NOW),
        files=st.just(1),
        bytes=st.just(1),
        stored_bytes=st.just(1),
        packs=st.just(("snap_1",)),
        took_ms=st.just(1),
    ),
    st.builds(ReportSnapshotFailed, **COMMON, machine_id=MACHINES, snapshot_id=SNAPSHOTS, code=st.just("x")),
    st.builds(GiveUpSnapshot, **COMMON, snapshot_id=SNAPSHOTS),
    st.builds(
        ReportRestored,
        **COMMON,
        machine_id=MACHINES,
        source=SNAPSHOTS,
        captured_at=st.just(NOW),
        files=st.just(1),
        bytes=st.just(1),
        took_ms=st.just(1),
    ),
    st.builds(
        ReportSilence,
        **COMMON,
        machine_id=MACHINES,
        last_seen_at=st.just(NOW),
        missed=st.just(3),
        is_lost=st.booleans(),
    ),
)
# Reports about the first machine, in the order in which they usually come: random choice alone seldom gets to `ready`.
USUAL = st.sampled_from(
    [
        CreateInstance(
            now=NOW,
            instance_id=INSTANCE_ID,
            account_id=ACCOUNT,
            name="my-instance",
            spec=SPEC,
            machine_id="mach_1",
            offers=(OFFER,),
            auto_stop_minutes=20,
        ),
        ReportRented(
            now=NOW,
            instance_id=INSTANCE_ID,
            machine_id="mach_1",
            provider="sandbox",
            provider_machine_id="sb_1",
            offer=OFFER,
        ),
        ReportBooted(now=NOW, instance_id=INSTANCE_ID, machine_id="mach_1", endpoints=()),
        ReportHealthy(now=NOW, instance_id=INSTANCE_ID, machine_id="mach_1"),
    ]
)
# Likewise for a standby and its promotion.
TAKEOVER = st.sampled_from(
    [
        RequestStandby(
            now=NOW,
            instance_id=INSTANCE_ID,
            machine_id="mach_2",
            primary_machine_id="mach_1",
            host_id="host_1",
            mode="hot",
            volume_gb=50,
            offers=(OFFER,),
        ),
        ReportRented(
            now=NOW,
            instance_id=INSTANCE_ID,
            machine_id="mach_2",
            provider="sandbox",
            provider_machine_id="sb_2",
            offer=OFFER,
        ),
        ReportBooted(now=NOW, instance_id=INSTANCE_ID, machine_id="mach_2", endpoints=()),
        ReportHealthy(now=NOW, instance_id=INSTANCE_ID, machine_id="mach_2"),
        ReportStopped(now=NOW, instance_id=INSTANCE_ID, machine_id="mach_1", reason="spot_preemption"),
        PromoteMachine(
            now=NOW,
            instance_id=INSTANCE_ID,
            machine_id="mach_2",
            replaces="mach_1",
            failover_id="fo_1",
            give_up_at=minutes(10_000),
        ),
    ]
)
# Likewise for a snapshot and a machine that is filled from it.
REFILLED = st.sampled_from(
    [
        RequestSnapshot(now=NOW, instance_id=INSTANCE_ID, snapshot_id="snap_1", reason="scheduled", has_storage=True),
        ReportSnapshot(
            now=NOW,
            instance_id=INSTANCE_ID,
            machine_id="mach_1",
            generation=1,
            snapshot_id="snap_1",
            captured_at=NOW,
            files=1,
            bytes=1,
            stored_bytes=1,
            packs=("snap_1",),
            took_ms=1,
        ),
        ReplaceMachine(
            now=NOW,
            instance_id=INSTANCE_ID,
            machine_id="mach_3",
            replaces="mach_1",
            failover_id="fo_2",
            give_up_at=minutes(10_000),
            rung="cloud_storage",
            offers=(OFFER,),
        ),
    ]
)


def copied(number: int) -> ReportSnapshot:
    snapshot_id = derive_id("snap", INSTANCE_ID, HIBERNATION, str(number))
    return ReportSnapshot(
        now=NOW,
        instance_id=INSTANCE_ID,
        machine_id="mach_1",
        generation=1,
        snapshot_id=snapshot_id,
        captured_at=NOW,
        files=1,
        bytes=1,
        stored_bytes=1,
        packs=(snapshot_id,),
        took_ms=1,
    )


# Likewise for a machine that is given back after two copies.
ASLEEP = st.sampled_from(
    [
        HibernateInstance(now=NOW, instance_id=INSTANCE_ID, account_id=ACCOUNT, has_storage=True),
        *(copied(number) for number in (1, 2)),
        *(
            ReportSnapshotChecked(
                now=NOW,
                instance_id=INSTANCE_ID,
                snapshot_id=copied(number).snapshot_id,
                is_whole=True,
                has_added=number == 1,
            )
            for number in (1, 2)
        ),
    ]
)


def one_primary_and_no_contract_forgotten(state: InstanceState) -> None:
    if state is None:
        return
    live = [m for m in state.machines if m.role == "primary" and m.status in LIVE]
    assert len(live) <= 1, f"two primary machines: {live}"
    for machine in state.machines:
        if machine.has_contract:
            assert machine.status in LIVE | {"destroying", "lost"}, f"a contract is forgotten: {machine}"
        if state.status in ("deleting", "deleted"):
            assert machine.status not in LIVE, f"alive in a deleted instance: {machine}"
            assert not machine.has_contract or machine.status == "destroying", f"not given back: {machine}"
    if state.status == "ready":
        assert [machine.status for machine in live] == ["healthy"], "ready without a healthy machine"
        carriers = [machine.generation for machine in state.machines if machine.role == "primary"]
        assert live[0].generation == max(carriers), "an older generation carries the instance"
    if state.status == "recovering":
        assert live, "nobody is taking over"
    assert len(state.standbys) <= 1, f"two standbys: {state.standbys}"
    if state.status == "hibernated":
        assert not live, "hibernated although a machine is alive"
        assert state.vault.latest is not None, "hibernated without a copy"
        assert state.vault.latest.snapshot_id == state.sleep.snapshot_id, "a copy that is not the checked one"
    if state.status == "interrupted":
        assert not live, "interrupted although a machine is alive"


def test_every_wish_for_an_instance_twice_is_once() -> None:
    every_command_twice_is_once(
        INSTANCE,
        USUAL | TAKEOVER | REFILLED | ASLEEP | INSTANCE_COMMANDS,
        invariant=one_primary_and_no_contract_forgotten,
        steps_max=30,
    )
