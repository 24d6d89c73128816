"""Where everything will be: ports, secrets, addresses, and the environment that services read.

Called by `__main__` before anything starts. Owns the files `secrets/*` of the data directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from libs.config import surroundings
from libs.embedded.files import (
    LOOPBACK,
    is_free,
    private_folder,
    remembered_port,
    remembered_secret,
    replace_private,
)
from libs.embedded.nats import NatsServer
from libs.embedded.postgres import PostgresServer
from libs.embedded.rclone import ACCESS_KEY, StorageServer
from services.supervisor import reach
from services.supervisor.options import Options, Outside

NATS_PORT, POSTGRES_PORT = 4222, 5432  # where their URLs name none
LOOPBACK_HOSTS = (LOOPBACK, "::1", "localhost")
# What a run for trying out gives that a real one does not: money to create a first instance with.
DEV_DEFAULTS = {"DUMONT_WELCOME_CREDIT_USD": "100"}


class CannotStart(Exception):
    """The run cannot begin; the text says what to do."""


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the first process starts. A server is None when an outside one is used."""

    options: Options
    data_dir: Path
    api_url: str
    nats: NatsServer | None
    postgres: PostgresServer | None
    storage: StorageServer | None
    nats_url: str
    postgres_url: str
    sandbox_url: str
    environment: Mapping[str, str]

    def log_path(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"


def make_plan(options: Options, around: Outside) -> Plan:
    """Pick ports and make secrets. Raises CannotStart when the wanted port is taken or a server cannot be reached."""
    if options.no_limits and options.host not in LOOPBACK_HOSTS:
        raise CannotStart(f"--no-limits is for load tests on this machine; it does not go with --host {options.host}")
    _check_addresses(options, around)
    data_dir = private_folder(options.folder)
    logs = private_folder(data_dir / "logs")
    secrets = private_folder(data_dir / "secrets")
    nats = postgres = None
    if around.nats_url is None:
        nats = NatsServer(
            data_dir / "nats",
            durability=options.durability,
            password=remembered_secret(secrets / "nats"),
            log_path=logs / "nats.log",
        )
    if around.postgres_url is None:
        postgres = PostgresServer(
            data_dir / "postgres", password=remembered_secret(secrets / "postgres"), log_path=logs / "postgres.log"
        )
    storage = None
    if not around.storage_url and "instance" in options.services:
        storage = StorageServer(
            data_dir / "storage", secret_key=remembered_secret(secrets / "storage"), log_path=logs / "storage.log"
        )
    nats_url = nats.url if nats else _revealed(around.nats_url)
    postgres_url = postgres.url if postgres else _revealed(around.postgres_url)
    port = _gateway_port(options, data_dir)
    api_url = f"http://{_dialled(options.host)}:{port}"
    sandbox_port = remembered_port(private_folder(data_dir / "sandbox") / "port")
    ours = {
        "DUMONT_DATA_DIR": str(data_dir),
        "DUMONT_NATS_URL": nats_url,
        "DUMONT_POSTGRES_URL": postgres_url,
        "DUMONT_SECRET": remembered_secret(secrets / "platform"),
        "DUMONT_SANDBOX_URL": f"http://{LOOPBACK}:{sandbox_port}",
        "DUMONT_SANDBOX_KEY": remembered_secret(secrets / "sandbox"),
        "DUMONT_SANDBOX_OPTIONS": _sandbox_options(options, around),
        **_storage_environment(storage),
        "DUMONT_GATEWAY_HOST": options.host,
        "DUMONT_GATEWAY_PORT": str(port),
        "DUMONT_GATEWAY_URL": api_url,
        "DUMONT_NO_LIMITS": str(options.no_limits).lower(),
        "DUMONT_MODE": around.mode,
        "DUMONT_DURABILITY": options.durability if nats else "outside",
    }
    # What `./dumont rebuild`, or a service started by hand, reads.
    replace_private(secrets / "environment.json", msgspec.json.encode(ours).decode())
    return Plan(
        options=options,
        data_dir=data_dir,
        api_url=api_url,
        nats=nats,
        postgres=postgres,
        storage=storage,
        nats_url=nats_url,
        postgres_url=postgres_url,
        sandbox_url=ours["DUMONT_SANDBOX_URL"],
        environment={**(DEV_DEFAULTS if around.mode == "dev" else {}), **surroundings(), **ours},
    )


def _check_addresses(options: Options, around: Outside) -> None:
    try:
        reach.bindable(options.host)
        if around.nats_url is not None:
            reach.answering("NATS", "DUMONT_NATS_URL", around.nats_url.reveal(), NATS_PORT)
        if around.postgres_url is not None:
            reach.answering("PostgreSQL", "DUMONT_POSTGRES_URL", around.postgres_url.reveal(), POSTGRES_PORT)
    except reach.Unreachable as error:
        raise CannotStart(str(error)) from error


def _storage_environment(storage: StorageServer | None) -> dict[str, str]:
    """An outside storage is described by the caller's own environment, which services inherit."""
    if storage is None:
        return {}
    return {
        "DUMONT_STORAGE_URL": storage.url,
        "DUMONT_STORAGE_ACCESS_KEY": ACCESS_KEY,
        "DUMONT_STORAGE_SECRET_KEY": storage.secret_key,
    }


def _revealed(url: object) -> str:
    return url.reveal() if hasattr(url, "reveal") else ""  # type: ignore[attr-defined]


def _gateway_port(options: Options, data_dir: Path) -> int:
    """A picked port is kept for the next run: agents in machines that survived us report to the old address."""
    if options.port == 0:
        return remembered_port(data_dir / "gateway.port", options.host)
    if not is_free(options.port, options.host):
        raise CannotStart(
            f"port {options.port} on {options.host} is taken by another program; choose one with --port N (0 picks one)"
        )
    return options.port


def _dialled(host: str) -> str:
    """The address under which programs on this machine reach a server bound to `host`."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return LOOPBACK
    return f"[{host}]" if ":" in host else host


def _sandbox_options(options: Options, around: Outside) -> str:
    try:
        base = msgspec.json.decode(around.sandbox_options or "{}", type=dict[str, object])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise CannotStart(f"DUMONT_SANDBOX_OPTIONS is not a JSON object: {error}") from error
    return msgspec.json.encode({**base, **options.sandbox}).decode()
