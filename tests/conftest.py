"""Servers for tests: real ones, on ports the system has free, in temporary folders, gone when the session ends.

`nats_server` and `postgres_server` are shared by the session; `database_url` is one fresh database per test and
`fresh_nats` one fresh nats-server per test (50 ms); `data_dir` checks that a platform leaves
no process behind. `DUMONT_TEST_BACKEND=containers` runs the two shared ones
through testcontainers, where a Docker engine answers.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import asyncpg
import psutil
import pytest

from libs.embedded.nats import NatsServer
from libs.embedded.postgres import PostgresServer

IN_CONTAINERS = os.environ.get("DUMONT_TEST_BACKEND") == "containers"
NATS_IMAGE = "nats:2.15.1"
POSTGRES_IMAGE = "postgres:18"
CONTAINER_READY_TIMEOUT_S = 60

database_numbers = itertools.count(1)


# A shell starts what it puts into the background with SIGINT ignored, and every program below would inherit that: then
# those that are to be stopped by a Ctrl-C would not hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Server(Protocol):
    """What tests may know of a shared server, whichever way it runs."""

    @property
    def url(self) -> str: ...


class Address:
    """A server in a container."""

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if IN_CONTAINERS:
        yield from nats_in_container()
        return
    server = NatsServer(tmp_path_factory.mktemp("nats"), durability="relaxed")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if IN_CONTAINERS:
        yield from postgres_in_container()
        return
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def fresh_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """An embedded nats-server that this test alone uses, and may kill."""
    server = NatsServer(tmp_path / "nats", durability="relaxed")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def database_url(postgres_server: Server) -> AsyncIterator[str]:
    """A database of its own for this test, dropped afterwards."""
    name = f"test_{os.getpid()}_{next(database_numbers)}"
    await administrate(postgres_server.url, f'CREATE DATABASE "{name}"')
    yield postgres_server.url.rpartition("/")[0] + "/" + name
    await administrate(postgres_server.url, f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A platform's data directory; whatever still runs in it after the test is an error, and is ended."""
    yield tmp_path / "data"
    left = [process for process in psutil.process_iter() if belongs(process, tmp_path)]
    for process in left:
        process.kill()
    assert not left, f"left behind: {left}"


def belongs(process: psutil.Process, folder: Path) -> bool:
    """Whether a process works in `folder`: by its arguments, environment or working directory."""
    try:
        return any(str(folder) in part for part in (*process.cmdline(), *process.environ().values(), process.cwd()))
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False


async def administrate(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def nats_in_container() -> Iterator[Server]:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    container = DockerContainer(NATS_IMAGE).with_command("-js --user platform --pass platform")
    container = container.with_exposed_ports(4222).waiting_for(
        LogMessageWaitStrategy("Server is ready").with_startup_timeout(CONTAINER_READY_TIMEOUT_S)
    )
    with container:
        address = f"{container.get_container_host_ip()}:{container.get_exposed_port(4222)}"
        yield Address(f"nats://platform:platform@{address}")


def postgres_in_container() -> Iterator[Server]:
    from testcontainers.postgres import PostgresContainer

    with PostgresContainer(POSTGRES_IMAGE, driver=None, username="dumont", dbname="dumont") as container:
        yield Address(container.get_connection_url())
