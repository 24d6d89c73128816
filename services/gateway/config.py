"""The gateway's settings, read once by `__main__`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from libs.config import ConfigError, Secret, setting

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")


class GatewaySettings(Struct, frozen=True, kw_only=True):
    """How the gateway is run. Each field is one variable, DUMONT_<FIELD>."""

    nats_url: Annotated[
        Secret, setting("where the bus is, credentials included", example="nats://user:pass@127.0.0.1:4222")
    ]
    secret: Annotated[Secret, setting("platform secret that agent tokens are made with", unit="hex")]
    gateway_host: Annotated[str, setting("address to listen on; on loopback in dev mode seeds 001-004 need no key")] = (
        "127.0.0.1"
    )
    gateway_port: Annotated[int, setting("port to listen on, 0 picks one", unit="port", ge=0, le=65535)] = 3000
    mode: Annotated[str, setting("dev or production", pattern="^(dev|production)$")] = "dev"
    log_level: Annotated[str, setting("least severe level that is logged", pattern="^(debug|info|warning|error)$")] = (
        "info"
    )
    trace_sample_ppm: Annotated[
        int, setting("share of requests traced when the caller did not decide", unit="ppm", ge=0, le=1_000_000)
    ] = 10_000
    otlp_endpoint: Annotated[
        str, setting("OTLP/HTTP base URL for traces; empty: none", env="OTEL_EXPORTER_OTLP_ENDPOINT")
    ] = ""
    limits: Annotated[
        str,
        setting(
            "what plans and addresses may ask: JSON laid over the defaults of services/gateway/limits/table.py",
            example='{"plans": {"dumont": {"free": {"per_minute": 120}}}}',
        ),
    ] = ""
    no_limits: Annotated[bool, setting("count nothing; refused unless the address is loopback")] = False
    trusted_proxies: Annotated[
        int, setting("proxies of ours in front that add to X-Forwarded-For; 0: the peer is the client", ge=0, le=10)
    ] = 0
    prepaid: Annotated[
        bool, setting("creates and starts need a hold at the billing service; false for a cloud of one's own")
    ] = True
    stream_replicas: Annotated[int, setting("copies of every stream in a NATS cluster", ge=1, le=5)] = 1

    @property
    def is_loopback(self) -> bool:
        return self.gateway_host in LOOPBACK_HOSTS

    @property
    def is_open(self) -> bool:
        """True when nobody but this machine can reach us and we are a developer's."""
        return self.mode == "dev" and self.is_loopback

    def check(self) -> None:
        """Rules between settings. Raises ConfigError."""
        if self.no_limits and not self.is_loopback:
            raise ConfigError(
                "gateway",
                [f"DUMONT_NO_LIMITS is for load tests on loopback, not for DUMONT_GATEWAY_HOST={self.gateway_host}"],
            )
