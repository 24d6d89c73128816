"""The instance service's settings, read once by `__main__`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from libs.config import Secret, setting
from services.instance.providers.labels import platform_id


class InstanceSettings(Struct, frozen=True, kw_only=True):
    """How the instance service is run. Each field is one variable, DUMONT_<FIELD>."""

    secret: Annotated[Secret, setting("platform secret that agent tokens are made with", unit="hex")]
    gateway_url: Annotated[str, setting("where agents inside machines report", example="http://127.0.0.1:3000")]
    sandbox_url: Annotated[str, setting("the sandbox cloud's API", example="http://127.0.0.1:3100")]
    sandbox_key: Annotated[Secret, setting("key of the sandbox cloud")]
    provider_poll_s: Annotated[
        int, setting("every cloud is compared with the log this often; hints are followed at once", unit="s", ge=1)
    ] = 10
    orphan_seen_s: Annotated[
        int,
        setting("a machine must be unknown for this long: the projection is never so far behind", unit="s", ge=1),
    ] = 30
    orphan_grace_s: Annotated[
        int,
        setting("an orphan is destroyed this long after it was found; a slow rent is adopted within", unit="s", ge=1),
    ] = 600
    heartbeat_s: Annotated[
        int, setting("agents are told to report this often (contract: 30)", unit="s", ge=1, le=3_600)
    ] = 30
    storage_url: Annotated[
        str, setting("S3-compatible storage for snapshots; empty: none", example="http://127.0.0.1:3200")
    ] = ""
    storage_bucket: Annotated[str, setting("bucket for snapshots, made if it is not there")] = "dumont"
    storage_region: Annotated[str, setting("region that requests to the storage are signed for")] = "us-east-1"
    storage_access_key: Annotated[str, setting("who we are at the storage")] = ""
    storage_secret_key: Annotated[Secret, setting("key of the storage; stays here, machines get signed URLs")] = Secret(
        ""
    )
    snapshot_interval_s: Annotated[
        int, setting("ready instances are copied to the storage this often; 0: only when asked", unit="s", ge=0)
    ] = 900
    hibernate_idle_s: Annotated[
        int, setting("an instance that nobody uses for so long is hibernated (contract: 900); 0: never", unit="s", ge=0)
    ] = 900
    hibernate_notice_s: Annotated[int, setting("and this is announced so long before", unit="s", ge=0)] = 300
    heartbeat_misses_max: Annotated[int, setting("after so many missed heartbeats an agent is silent", ge=1)] = 3
    heartbeat_loss_s: Annotated[
        int, setting("a machine whose agent is silent for so long counts as lost", unit="s", ge=1)
    ] = 300

    @property
    def platform(self) -> str:
        """Whose our machines at clouds are."""
        return platform_id(self.secret.reveal())

    @property
    def patience(self) -> tuple[int, int, int, int, int, int]:
        """How long the watches wait, in the order in which the World takes them."""
        clouds = (self.provider_poll_s, self.orphan_seen_s, self.orphan_grace_s)
        return (*clouds, self.heartbeat_s, self.heartbeat_misses_max, self.heartbeat_loss_s)

    @property
    def pace(self) -> tuple[float, float, float]:
        """How often files are kept and when idleness ends, in the order in which the World takes them."""
        return (self.snapshot_interval_s, self.hibernate_idle_s, self.hibernate_notice_s)
