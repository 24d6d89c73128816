"""What is kept and not heeded is said, and nothing is said of defaults."""

from __future__ import annotations

import pytest

from proto.failover.words import CpuStandbySettings, GlobalSettings, WarmPoolSettings
from services.gateway.dialects.dumont import setting_warnings

SLOW = CpuStandbySettings(health_check_interval_seconds=60)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (GlobalSettings(), []),
        (GlobalSettings(cpu_standby=CpuStandbySettings(gcp_zone="us-east1-b", gcp_spot=False)),
         ["cpu_standby.gcp_zone", "cpu_standby.gcp_spot"]),
        (GlobalSettings(cpu_standby=CpuStandbySettings(snapshot_to_cloud=False)), ["cpu_standby.snapshot_to_cloud"]),
        (GlobalSettings(cpu_standby=SLOW), []),  # the warm pool's still wants it
        (GlobalSettings(warm_pool=WarmPoolSettings(health_check_interval_seconds=60), cpu_standby=SLOW),
         ["health_check_interval_seconds"]),
    ],
)  # fmt: skip
def test_a_setting_that_does_not_do_what_one_might_expect_is_named(settings: GlobalSettings, named: list[str]) -> None:
    assert [warning.partition(":")[0] for warning in setting_warnings.of_settings(settings)] == named
