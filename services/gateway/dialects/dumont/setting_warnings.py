"""Settings that do not do here what one might expect of the contract: said whenever one is not at its default.

Used by `failover_settings` and `standby`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from proto.failover.words import CpuStandbySettings, GlobalSettings

CLOUDS_LOOKED_AT_S = 10  # unless the installation says otherwise
_CHEAPEST = "only estimates use it; the machine is the cheapest CPU machine, in another region where there is one"


def of_settings(settings: GlobalSettings) -> list[str]:
    pool = settings.warm_pool.health_check_interval_seconds
    checks = min(pool, settings.cpu_standby.health_check_interval_seconds)
    slow = f"health_check_interval_seconds: machines are looked at every {CLOUDS_LOOKED_AT_S} s all the same"
    return [*of_cpu_standby(settings.cpu_standby), *([slow] if checks > CLOUDS_LOOKED_AT_S else [])]


def of_cpu_standby(cpu: CpuStandbySettings) -> list[str]:
    return list(_of_cpu_standby(cpu, CpuStandbySettings()))


def _of_cpu_standby(cpu: CpuStandbySettings, default: CpuStandbySettings) -> Iterator[str]:
    for name in ("gcp_zone", "gcp_machine_type", "gcp_disk_size_gb", "gcp_spot"):
        if getattr(cpu, name) != getattr(default, name):
            yield f"cpu_standby.{name}: {_CHEAPEST}"
    if not cpu.snapshot_to_cloud:
        yield "cpu_standby.snapshot_to_cloud: snapshots are taken all the same, as this installation is set up"
