"""Sandbox machines are real: they can be logged into, survive their cloud's death, and vanish without a trace."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncssh
import psutil
import pytest

from tests.integration.sandbox_daemon import PAUSE_S, START_TIMEOUT_S, Daemon, port_of


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(tmp_path)
    await daemon.start()
    yield daemon
    await daemon.close()


def login(daemon: Daemon, machine: dict[str, Any], key: Any = None) -> Any:
    keys = [key or str(daemon.root / "keys" / "id_ed25519")]
    port = port_of(machine, 22)
    return asyncssh.connect("127.0.0.1", port, username="root", client_keys=keys, known_hosts=None, agent_path=None)


def leader_of(daemon: Daemon, machine: dict[str, Any]) -> psutil.Process:
    report = daemon.root / "machines" / machine["machine_id"] / ".dumont" / "leader.json"
    import msgspec

    return psutil.Process(msgspec.json.decode(report.read_bytes())["process"]["pid"])


async def until(condition: Any) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while not condition():
            await asyncio.sleep(PAUSE_S)


async def test_ssh_starts_in_the_workspace_and_says_how_a_command_ended(daemon: Daemon) -> None:
    machine = await daemon.order("mach_1", env={"MODEL": "llama"})
    async with login(daemon, machine) as connection:
        assert (await connection.run("touch file; echo $MODEL; cat; exit 7", input="fed")).exit_status == 7
        assert (await connection.run("echo $MODEL; cat", input="fed")).stdout == "llama\nfed"
        assert "DUMONT_SANDBOX_KEY" not in (await connection.run("env")).stdout
    assert (daemon.root / "machines" / machine["machine_id"] / "workspace" / "file").exists()


async def test_a_terminal_is_a_real_one(daemon: Daemon) -> None:
    machine = await daemon.order("mach_1")
    async with login(daemon, machine) as connection:
        shown = await connection.run("tty && stty size && exit 3", term_type="xterm", term_size=(132, 43))
    assert "/dev/pts/" in shown.stdout
    assert "43 132" in shown.stdout
    assert shown.exit_status == 3


async def test_sftp_sees_the_machine_and_nothing_above_it(daemon: Daemon) -> None:
    machine = await daemon.order("mach_1")
    async with login(daemon, machine) as connection, connection.start_sftp_client() as sftp:
        async with sftp.open("weights.bin", "wb") as remote:
            await remote.write(b"\x00" * 100_000)
        assert await sftp.getcwd() == "/workspace"
        assert "workspace" in await sftp.listdir("/../..")
        assert await sftp.getsize("/workspace/weights.bin") == 100_000
        with pytest.raises(asyncssh.SFTPError):
            await sftp.stat("/etc/passwd")
    assert (daemon.root / "machines" / machine["machine_id"] / "workspace" / "weights.bin").stat().st_size == 100_000


async def test_only_the_callers_key_opens_a_machine_ordered_with_one(daemon: Daemon) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    machine = await daemon.order("mach_1", ssh_public_keys=[key.export_public_key().decode()])
    async with login(daemon, machine, key) as connection:
        assert (await connection.run("pwd")).exit_status == 0
    with pytest.raises(asyncssh.PermissionDenied):
        await login(daemon, machine)


async def test_a_key_of_the_inbox_hands_files_in_and_does_nothing_else(daemon: Daemon) -> None:
    """The sync key opened a shell: who had stolen it had the standby and all files."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    line = " ".join(key.export_public_key().decode().split()[:2])
    machine = await daemon.order("mach_1", inbox_public_keys=[line])
    mine = "/.dumont/inbox/3"
    async with login(daemon, machine) as owner, owner.start_sftp_client() as sftp:
        await sftp.makedirs(mine)
        async with sftp.open("secret", "wb") as remote:
            await remote.write(b"the customer's")
    async with login(daemon, machine, key) as connection:
        async with connection.start_sftp_client() as sftp:
            await sftp.put(__file__, f"{mine}/part.draft")
            await sftp.posix_rename(f"{mine}/part.draft", f"{mine}/part")
            assert await sftp.getsize(f"{mine}/part") == Path(__file__).stat().st_size
            for ask in _asked_beyond_the_inbox(sftp, mine):
                with pytest.raises(asyncssh.SFTPPermissionDenied):
                    await ask
        for asked in ({"command": "id"}, {"command": "cat secret"}, {}):
            answer = await connection.run(**asked, stdin=asyncssh.DEVNULL)
            assert (answer.exit_status, answer.stdout) == (1, ""), asked
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.run("id", term_type="xterm")
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", port_of(machine, 22))
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 22)
        with pytest.raises((asyncssh.SFTPError, OSError)):
            await asyncssh.scp((connection, "/workspace/secret"), daemon.data_dir / "stolen")
    home = daemon.root / "machines" / machine["machine_id"]
    assert not (daemon.data_dir / "stolen").exists()
    assert (home / ".dumont" / "inbox" / "3" / "part").read_bytes() == Path(__file__).read_bytes()
    assert sorted(path.name for path in (home / ".dumont" / "inbox").rglob("*")) == ["3", "part"]
    refused = await daemon.call("POST", "/v1/machines", {
        "label": "mach_2", "offer_id": "x", "image": "pytorch", "inbox_public_keys": [f"{line}\n{line}"],
    })  # fmt: skip
    assert refused[0] == 400, "a second line would be a key without the options"


def _asked_beyond_the_inbox(sftp: asyncssh.SFTPClient, mine: str) -> list[Any]:
    outside = (
        f"{mine}/../../machine.log",
        "/workspace/secret",
        "secret",
        "/.dumont/inbox",
        "/../../etc/passwd",
        "//etc",
    )
    return [
        *(sftp.stat(path) for path in outside),
        *(sftp.open(path, "wb") for path in outside),
        *(sftp.open(f"{mine}/part", mode) for mode in ("rb", "r+b")),
        sftp.open(f"{mine}/part", pflags_or_mode=0),
        *(sftp.listdir(path) for path in ("/", mine)),
        sftp.posix_rename(f"{mine}/part", "/workspace/part"),
        sftp.posix_rename("/workspace/secret", f"{mine}/secret"),
        sftp.symlink("/workspace", f"{mine}/way-out"),
        sftp.link("/workspace/secret", f"{mine}/link"),
        sftp.readlink(f"{mine}/part"),
        sftp.mkdir("/.dumont/inbox/4"),
        sftp.rmdir(mine),
        sftp.remove(f"{mine}/part"),
        sftp.chmod(f"{mine}/part", 0o777),
    ]


async def test_http_ports_answer_and_can_be_unwell_for_a_while(daemon: Daemon) -> None:
    await daemon.call("POST", "/v1/faults", {"boots_unwell": 1, "unwell_ms": 1_500})
    machine = await daemon.order("mach_1", ports=[{"port": 8888, "protocol": "http"}])
    url = f"http://127.0.0.1:{port_of(machine, 8888)}/lab"
    seen: list[int] = []
    async with aiohttp.ClientSession() as session, asyncio.timeout(START_TIMEOUT_S):
        while 200 not in seen:
            async with session.get(url) as response:
                seen.append(response.status)
            await asyncio.sleep(PAUSE_S)
    assert seen[0] == 502


async def test_machines_survive_the_death_of_the_cloud_and_are_adopted(daemon: Daemon) -> None:
    machine = await daemon.order("mach_1")
    leader = leader_of(daemon, machine)
    await daemon.kill()
    async with login(daemon, machine) as connection:
        await connection.run("touch alone", check=True)
    await daemon.start()
    assert await daemon.until(machine["machine_id"], "running") == machine
    assert leader_of(daemon, machine) == leader
    leader.kill()
    ended = await daemon.until(machine["machine_id"], "exited")
    assert ended["interruption"] == "host_failure"


async def test_a_machine_that_died_while_the_cloud_was_away_is_noticed(daemon: Daemon) -> None:
    machine = await daemon.order("mach_1")
    await daemon.kill()
    leader = leader_of(daemon, machine)
    leader.kill()
    await until(lambda: not leader.is_running() or leader.status() == psutil.STATUS_ZOMBIE)
    await daemon.start()
    assert (await daemon.until(machine["machine_id"], "exited"))["interruption"] == "host_failure"


async def test_an_orderly_restart_brings_machines_back_as_they_were(daemon: Daemon) -> None:
    machine = await daemon.order("mach_1", ports=[{"port": 8888, "protocol": "http"}])
    async with login(daemon, machine) as connection:
        await connection.run("echo precious > kept", check=True)
    leader = leader_of(daemon, machine)
    await daemon.stop()
    assert not leader.is_running() or leader.status() == psutil.STATUS_ZOMBIE
    await daemon.start()
    assert await daemon.until(machine["machine_id"], "running") == machine
    async with login(daemon, machine) as connection:
        assert (await connection.run("cat kept", check=True)).stdout == "precious\n"


async def test_a_cloud_that_ends_while_machines_boot_leaves_none_of_them_running(daemon: Daemon) -> None:
    _, listed = await daemon.call("GET", "/v1/offers?gpu=RTX%204090&billing=spot")
    agent = {"DUMONT_AGENT_TOKEN": "none", "DUMONT_GATEWAY_URL": daemon.url}
    body = {"image": "pytorch", "agent_env": agent}
    orders = [
        daemon.call("POST", "/v1/machines", {**body, "label": f"m{n}", "offer_id": offer["offer_id"]})
        for n, offer in enumerate(listed["offers"][:6])
    ]
    answers = await asyncio.gather(*orders)
    assert 201 in {status for status, _ in answers}
    machines = str((daemon.root / "machines").resolve())
    await daemon.stop()
    await until(lambda: not inhabitants(machines))


def inhabitants(directory: str) -> list[int]:
    """Processes that work in a directory, also when it is gone."""
    found: list[int] = []
    for process in psutil.process_iter():
        try:
            if str(Path(f"/proc/{process.pid}/cwd").readlink()).startswith(directory):
                found.append(process.pid)
        except OSError:
            continue
    return found


async def test_a_preemption_leaves_neither_processes_nor_files(daemon: Daemon) -> None:
    machine = await daemon.order("mach_1")
    async with login(daemon, machine) as connection:
        # What leaves its session, its group and its parent still belongs to the machine.
        escape = "setsid sh -c 'sleep 4321 & exec sleep 4322' > /dev/null 2>&1 < /dev/null & echo started"
        await connection.run(escape, check=True)
        await until(lambda: len(sleepers(machine)) == 2)
        status, _ = await daemon.call("POST", f"/v1/machines/{machine['machine_id']}/interrupt", {})
    assert status == 204
    assert sleepers(machine) == []
    assert not (daemon.root / "machines" / machine["machine_id"]).exists()
    _, seen = await daemon.call("GET", f"/v1/machines/{machine['machine_id']}")
    assert (seen["status"], seen["interruption"]) == ("exited", "spot_preemption")
    status, refusal = await daemon.call("POST", f"/v1/machines/{machine['machine_id']}/start")
    assert (status, refusal["code"]) == (409, "machine_lost")


def sleepers(machine: dict[str, Any]) -> list[int]:
    """Sleeps started inside this machine."""
    found: list[int] = []
    for process in psutil.process_iter():
        try:
            is_ours = process.environ().get("DUMONT_SANDBOX_MACHINE") == machine["machine_id"]
            if is_ours and process.name() == "sleep" and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give machines users of their own")
async def test_machines_of_a_root_cloud_are_users_of_their_own(daemon: Daemon) -> None:
    first, second = await daemon.order("mach_1"), await daemon.order("mach_2")
    async with login(daemon, first) as one, login(daemon, second) as two:
        ids = {(await connection.run("id -u", check=True)).stdout.strip() for connection in (one, two)}
        assert len(ids) == 2
        assert "0" not in ids
        secret = daemon.root / "records"
        assert (await one.run(f"ls {secret}")).exit_status != 0


async def test_machines_on_one_host_share_a_volume(daemon: Daemon) -> None:
    _, listed = await daemon.call("GET", "/v1/offers?gpu=RTX%204090&billing=spot")
    offer = listed["offers"][0]
    wish = {"name": "models", "host_id": offer["host_id"]}
    _, volume = await daemon.call("POST", "/v1/volumes", wish)
    first = await daemon.order("mach_1", offer_id=offer["offer_id"], volume_id=volume["volume_id"])
    second = await daemon.order("mach_2", offer_id=offer["offer_id"], volume_id=volume["volume_id"])
    async with login(daemon, first) as one, login(daemon, second) as two, two.start_sftp_client() as files:
        await one.run("echo ours > shared", check=True)
        assert (await two.run("cat shared && echo more >> shared", check=True)).stdout == "ours\n"
        assert await files.getsize("shared") == len("ours\nmore\n")
    await daemon.kill()
    await daemon.start()
    status, _ = await daemon.call("DELETE", f"/v1/volumes/{volume['volume_id']}")
    assert status == 409, "also after a restart the cloud knows who has it"
    for machine in (first, second):
        await daemon.call("DELETE", f"/v1/machines/{machine['machine_id']}")
    assert (await daemon.call("DELETE", f"/v1/volumes/{volume['volume_id']}"))[0] == 204


async def test_a_start_command_runs_in_the_workspace(daemon: Daemon) -> None:
    machine = await daemon.order("mach_1", start_command="echo $MODEL > started", env={"MODEL": "llama"})
    started = daemon.root / "machines" / machine["machine_id"] / "workspace" / "started"
    await until(lambda: started.exists() and started.read_text() == "llama\n")


async def test_without_the_key_there_is_nothing(daemon: Daemon) -> None:
    assert (await daemon.call("GET", "/v1/machines", key="wrong"))[0] == 401


async def test_a_create_cannot_ask_for_nonsense(daemon: Daemon) -> None:
    for body in ({}, {"label": "a b", "offer_id": "x", "image": "y"}, [], {"label": "a", "offer_id": "x", "image": 3}):
        assert (await daemon.call("POST", "/v1/machines", body))[0] == 400


async def test_a_cloud_leaves_the_machines_of_another_cloud_alone(daemon: Daemon, tmp_path: Path) -> None:
    other = Daemon(tmp_path / "other")
    other.data_dir.mkdir()
    await other.start()
    try:
        ours, theirs = await daemon.order("mach_1"), await other.order("mach_1")
        await daemon.call("DELETE", f"/v1/machines/{ours['machine_id']}")
        async with login(other, theirs) as connection:
            assert (await connection.run("pwd")).exit_status == 0
    finally:
        await other.close()
