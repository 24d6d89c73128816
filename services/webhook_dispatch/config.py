"""Webhook dispatch's settings, read once by `__main__`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from libs.config import Secret, setting
from services.webhook_dispatch.effects.fence import Fence

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


class DispatchSettings(Struct, frozen=True, kw_only=True):
    """How webhook dispatch is run. Each field is one variable, DUMONT_<FIELD>."""

    secret: Annotated[Secret, setting("platform secret that endpoints' secrets are sealed with", unit="hex")]
    mode: Annotated[str, setting("dev or production", pattern="^(dev|production)$")] = "dev"
    gateway_host: Annotated[
        str, setting("address the gateway listens on; on loopback in dev mode receivers may be there too")
    ] = "127.0.0.1"
    webhook_networks: Annotated[
        str,
        setting("networks that webhooks may be sent to besides the public internet", example="10.1.0.0/16,fd00::/8"),
    ] = ""
    webhook_public: Annotated[
        bool, setting("false: nothing is sent to the public internet, only to the networks listed")
    ] = True
    webhook_pace_ppm: Annotated[
        int,
        setting("length of the pauses between retries; a million is as documented", unit="ppm", ge=1, le=10_000_000),
    ] = 1_000_000

    @property
    def fence(self) -> Fence:
        """Receivers on this machine are for a developer's platform, which nobody else can reach; plain HTTP too."""
        is_developers = self.mode == "dev" and self.gateway_host in LOOPBACK_HOSTS
        networks = [network.strip() for network in self.webhook_networks.split(",") if network.strip()]
        return Fence(
            networks,
            is_loopback_allowed=is_developers,
            is_http_allowed=self.mode == "dev",
            is_public_allowed=self.webhook_public,
        )
