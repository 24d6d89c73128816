"""The embedded servers: kept port, kept data, private, gone with their starter."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import nats
import psutil
import pytest

from libs.embedded import files
from libs.embedded.child import Child, ServerDied
from libs.embedded.files import is_free
from libs.embedded.nats import NatsServer
from libs.embedded.postgres import PostgresServer

DEADLINE_S = 20.0


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.01)


async def test_nats_keeps_port_and_stream_after_a_kill_and_clients_reconnect(fresh_nats: NatsServer) -> None:
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    client = await nats.connect(
        fresh_nats.url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, reconnected_cb=reconnected
    )
    try:
        stream = client.jetstream()
        await stream.add_stream(name="KEPT", subjects=["kept.>"])
        await stream.publish("kept.one", b"1")
        port = fresh_nats.port
        fresh_nats.kill()
        fresh_nats.start()
        async with asyncio.timeout(DEADLINE_S):
            await back.wait()
            assert (await stream.publish("kept.two", b"2")).seq == 2
        assert fresh_nats.port == port
    finally:
        await client.close()


@pytest.mark.parametrize("login", ["{}", '{"user":"platform","pass":"wrong"}'])
def test_nats_refuses_a_stranger(fresh_nats: NatsServer, login: str) -> None:
    with socket.create_connection(("127.0.0.1", fresh_nats.port), DEADLINE_S) as client:
        client.sendall(f"CONNECT {login}\r\nPING\r\n".encode())
        said = b""
        while chunk := client.recv(4096):
            said += chunk
    assert b"-ERR 'Authorization Violation'" in said
    assert b"PONG" not in said


async def test_postgres_keeps_port_and_rows_after_a_kill(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    server.start()
    try:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        url = server.url
        server.kill()
        server.start()
        assert server.url == url
        again = await asyncpg.connect(server.url)
        assert await again.fetchval("SELECT n FROM kept") == 7
        assert await again.fetchval("SHOW fsync") == "on"
        await again.close()
        connection.terminate()
    finally:
        server.stop()


async def test_postgres_wants_its_password(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    server.start()
    try:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(f"postgresql://dumont:wrong@127.0.0.1:{server.port}/dumont")
    finally:
        server.stop()


def test_postgres_starts_below_a_folder_that_others_may_not_enter(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = PostgresServer(closed / "postgres")
    server.start()
    server.stop()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


def test_an_interrupted_first_start_is_made_good(tmp_path: Path) -> None:
    half_made = tmp_path / "postgres" / "cluster" / "making"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    server = PostgresServer(tmp_path / "postgres")
    server.start()
    server.stop()
    assert not half_made.exists()


def test_secrets_are_readable_by_us_only(fresh_nats: NatsServer) -> None:
    for name in ("password", "accounts.conf", "server.conf"):
        assert stat.S_IMODE((fresh_nats.folder / name).stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
def test_servers_die_with_a_killed_starter(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from libs.embedded.nats import NatsServer\n"
        "from libs.embedded.postgres import PostgresServer\n"
        "servers = [NatsServer(Path(sys.argv[1]) / 'n'), PostgresServer(Path(sys.argv[1]) / 'p')]\n"
        "for server in servers: server.start()\n"
        "print(*[server.pid for server in servers], flush=True); time.sleep(600)\n"
    )
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert starter.stdout is not None
    with starter.stdout:
        pids = [int(word) for word in starter.stdout.readline().split()]
    assert len(pids) == 2
    starter.kill()
    starter.wait()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), "servers gone")
    for server in (NatsServer(tmp_path / "n"), PostgresServer(tmp_path / "p")):
        server.start()
        server.stop()
        assert is_free(server.port)


def test_no_port_is_given_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan picks the ports of several servers before the first of them listens."""
    monkeypatch.setattr(files, "PORT_LAST", files.PORT_FIRST + 8)
    given: list[int] = []
    with pytest.raises(OSError, match="no free port"):
        while True:
            given.append(files.pick_port())
    assert len(set(given)) == len(given) <= 8


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    (server.folder / "jetstream").write_text("a file where a folder should be")
    with pytest.raises(ServerDied, match="ended while starting"):
        server.start()


def test_stopping_what_never_ran_is_fine(tmp_path: Path) -> None:
    child = Child("idle", log_path=tmp_path / "log", polite_signal=signal.SIGTERM, orphan_signal=signal.SIGTERM)
    child.stop()
    child.kill()
    assert child.pid == 0
