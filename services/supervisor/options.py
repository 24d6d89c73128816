"""What may be chosen for one run of the platform: made by `./dumont up`, read once by `__main__`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from libs import config
from libs.config import Secret, setting
from proto.gateway.words import Plan

# In the order of starting; stopping goes backwards. Values are modules with `main() -> None`.
SERVICES = {
    "sandbox": "services.sandbox.__main__",
    "instance": "services.instance.__main__",
    "failover": "services.failover.__main__",
    "warmpool": "services.warmpool.__main__",
    "billing": "services.billing.__main__",
    "webhook_dispatch": "services.webhook_dispatch.__main__",
    "gateway": "services.gateway.__main__",
}


class Options(Struct, frozen=True, forbid_unknown_fields=True):
    """One run. Defaults are those of `./dumont up` without arguments."""

    data_dir: str
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 3000  # 0: pick a free one
    json_line: bool = False  # announce as one line of JSON on stdout
    durability: Literal["always", "relaxed"] = "always"
    sandbox: dict[str, Any] = {}  # laid over DUMONT_SANDBOX_OPTIONS
    plan: Plan | None = None  # of the default account; None: as it is, `operator` when it is new
    no_limits: bool = False
    services: dict[str, str] = field(default_factory=lambda: dict(SERVICES))

    @property
    def folder(self) -> Path:
        return Path(self.data_dir).absolute()


class Outside(Struct, frozen=True):
    """What the environment says about this run: servers that are not ours to start, and the sandbox's options."""

    nats_url: Annotated[
        Secret | None, setting("an outside NATS to use instead of starting one", example="nats://u:p@10.0.0.1:4222")
    ] = None
    postgres_url: Annotated[
        Secret | None,
        setting("an outside PostgreSQL to use instead of starting one", example="postgresql://u:p@10.0.0.1/dumont"),
    ] = None
    storage_url: Annotated[
        str,
        setting("an outside S3-compatible storage to use instead of starting one", example="https://s3.example.com"),
    ] = ""
    sandbox_options: Annotated[
        str, setting("pace, luck and size of the sandbox cloud, one JSON object", example='{"seed": 7}')
    ] = ""
    mode: Annotated[Literal["dev", "production"], setting("dev lets loopback callers do without a key")] = "dev"


def outside() -> Outside:
    return config.read(Outside)
