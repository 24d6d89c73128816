"""What carries a machine: a real process group, or nothing but its record.

Used by `cloud`, which knows only the four verbs. `ProcessCarrier` owns the machines' directories and processes;
`VirtualCarrier` owns one shared http port and one shared tcp port that really answer, so that probes stay real.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import asyncssh
import msgspec

from libs.clock import SystemClock
from services.sandbox import pages
from services.sandbox.homes import Homes
from services.sandbox.leader import LOOPBACK, PRIVATE, REPORT_FILE, SSH_PORT, BootOrder, BootReport
from services.sandbox.processes import ProcessList, identity, is_alive, open_handle, send_group
from services.sandbox.records import Record, Volume, replace
from services.sandbox.shell import authorized_keys
from services.sandbox.wire import EndpointView, PortWish
from services.sandbox.zygote import BootFailed, Zygote, read_report

# More forks at once only fight for the host's cores.
BOOTS_AT_ONCE_MAX = 8
# No more is read from a report that a machine's user may have changed.
REPORT_BYTES_MAX = 16 * 1024
VIRTUAL_BANNER = b"SSH-2.0-dumont_sandbox_virtual\r\n"


class Carrier(Protocol):
    """How a machine comes up, goes down and vanishes. All idempotent."""

    ssh_key_path: str

    async def boot(self, record: Record, volume: Volume | None, *, unwell_until: float) -> None:
        """Bring it up; sets `process` and `endpoints` of the record. Raises BootFailed."""
        ...

    async def adopt(self, record: Record) -> bool:
        """After a restart of the daemon: is it still up? Sets `process` and `endpoints` when it is."""
        ...

    def watch(self, record: Record, ended: Callable[[], None]) -> None:
        """Call `ended` once when it goes down by itself."""
        ...

    def ended_in_order(self, record: Record) -> bool:
        """Whether a machine that went down did so on purpose."""
        ...

    async def halt(self, record: Record, *, grace_s: float) -> None:
        """Take it down with everything in it; its files stay."""
        ...

    async def share(self, record: Record, volume: Volume) -> None:
        """Make its workspace the volume's directory; it goes on using it."""
        ...

    def show_gpus(self, record: Record, percents: Sequence[int]) -> None:
        """From now on its agent measures this load on its GPUs; before, there is nothing to measure."""
        ...

    async def wipe(self, record: Record) -> None:
        """Take its files away, but not those of its volume."""
        ...


class ProcessCarrier:
    """Machines as process groups of this host."""

    def __init__(self, root: Path, homes: Homes, zygote: Zygote) -> None:
        self._homes = homes
        self._zygote = zygote
        self._places = asyncio.Semaphore(BOOTS_AT_ONCE_MAX)
        self._processes = ProcessList()
        self._handles: dict[str, int] = {}
        self._private_key = root / "keys" / "id_ed25519"
        self.ssh_key_path = str(self._private_key)
        self._public_key = _platform_key(self._private_key)

    async def boot(self, record: Record, volume: Volume | None, *, unwell_until: float) -> None:
        home = await asyncio.to_thread(self._homes.make, record, volume)
        (home / PRIVATE / REPORT_FILE).unlink(missing_ok=True)
        order = BootOrder(
            machine_id=record.machine_id,
            directory=str(home),
            facts=_facts(record),
            ports=record.ports,
            endpoints=record.endpoints,
            authorized_keys=authorized_keys(record.ssh_public_keys or (self._public_key,), record.inbox_public_keys),
            env=record.env,
            agent_env=_agent_environment(record, home, self._homes),
            start_command=record.start_command,
            user_id=record.user_id,
            group_id=volume.group_id if volume else 0,
            unwell_until=unwell_until,
        )
        async with self._places:
            pid, reading = await self._zygote.fork(order)
            record.process = identity(pid)  # whoever wants it down before it has reported finds it
            try:
                report = await read_report(reading)
            except BootFailed:
                await self._processes.end(pid, user_id=record.user_id, machine_id=record.machine_id)
                record.process = None
                raise
        record.process = report.process
        record.endpoints = report.endpoints

    async def adopt(self, record: Record) -> bool:
        if record.process is not None:
            return is_alive(record.process)
        report = self._report(record)  # forked, but the daemon died before it could note that
        if report is None or not is_alive(report.process) or os.getsid(report.process.pid) != report.process.pid:
            return False
        record.process, record.endpoints = report.process, report.endpoints
        return True

    def watch(self, record: Record, ended: Callable[[], None]) -> None:
        assert record.process is not None, "only a booted machine can be watched"
        self._unwatch(record.machine_id)
        loop = asyncio.get_running_loop()
        handle = open_handle(record.process)
        if handle is None:
            loop.call_soon(ended)
            return
        self._handles[record.machine_id] = handle

        def gone() -> None:
            self._unwatch(record.machine_id)
            ended()

        loop.add_reader(handle, gone)

    def ended_in_order(self, record: Record) -> bool:
        report = self._report(record)
        return report is not None and report.process == record.process and bool(report.ended)

    async def halt(self, record: Record, *, grace_s: float) -> None:
        self._unwatch(record.machine_id)
        leader = record.process if record.process is not None and is_alive(record.process) else None
        if leader is not None and grace_s > 0:
            send_group(leader.pid, signal.SIGTERM)
            await _wait_for_end(open_handle(leader), grace_s)
        pid = leader.pid if leader is not None else 0
        # Its session may outlive the leader, so the number is looked for even when the leader is gone.
        session = pid or (record.process.pid if record.process is not None else 0)
        await self._processes.end(session, user_id=record.user_id, machine_id=record.machine_id)
        record.process = None

    async def share(self, record: Record, volume: Volume) -> None:
        await asyncio.to_thread(self._homes.share, record, volume)

    def show_gpus(self, record: Record, percents: Sequence[int]) -> None:
        gpus = [{"name": record.gpu, "utilization": percent} for percent in percents]
        self._homes.tell(self._homes.gpu_file(record.machine_id), msgspec.json.encode(gpus))

    async def wipe(self, record: Record) -> None:
        await asyncio.to_thread(self._homes.wipe, record.machine_id)

    def _unwatch(self, machine_id: str) -> None:
        handle = self._handles.pop(machine_id, None)
        if handle is not None:
            asyncio.get_running_loop().remove_reader(handle)
            os.close(handle)

    def _report(self, record: Record) -> BootReport | None:
        path = self._homes.home(record.machine_id) / PRIVATE / REPORT_FILE
        # The machine's user owns this directory: follow no link out of it.
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return msgspec.json.decode(os.read(descriptor, REPORT_BYTES_MAX), type=BootReport)
        except (msgspec.DecodeError, OSError):
            return None
        finally:
            os.close(descriptor)


class VirtualCarrier:
    """Machines that are only records; all their endpoints lead to two ports of the daemon."""

    ssh_key_path = ""

    def __init__(self, http_port: int, tcp_port: int) -> None:
        self._ports = {"http": http_port, "tcp": tcp_port}
        self._unwell: dict[str, list[asyncio.Server]] = {}

    async def boot(self, record: Record, volume: Volume | None, *, unwell_until: float) -> None:  # noqa: ARG002 - port
        if unwell_until > SystemClock().now().timestamp():
            record.endpoints = tuple(
                [await self._unwell_endpoint(record, wish, unwell_until) for wish in _ports(record)]
            )
        else:
            record.endpoints = tuple(
                EndpointView(wish.port, LOOPBACK, self._ports[wish.protocol], wish.protocol) for wish in _ports(record)
            )

    async def adopt(self, record: Record) -> bool:
        # The shared ports may have moved with the daemon.
        if record.status == "running":
            await self.boot(record, None, unwell_until=0.0)
        return record.status == "running"

    def watch(self, record: Record, ended: Callable[[], None]) -> None:
        """Nothing can end by itself here."""

    def ended_in_order(self, record: Record) -> bool:  # noqa: ARG002 - port
        return False

    async def halt(self, record: Record, *, grace_s: float) -> None:  # noqa: ARG002 - port
        for server in self._unwell.pop(record.machine_id, []):
            server.close()

    async def share(self, record: Record, volume: Volume) -> None:
        """There are no files."""

    def show_gpus(self, record: Record, percents: Sequence[int]) -> None:
        """There is no agent."""

    async def wipe(self, record: Record) -> None:
        """There are no files."""

    async def _unwell_endpoint(self, record: Record, wish: PortWish, until: float) -> EndpointView:
        if wish.protocol == "tcp":
            return EndpointView(wish.port, LOOPBACK, self._ports["tcp"], "tcp")
        server = await pages.open_port(wish, 0, _facts(record), unwell_until=until)
        self._unwell.setdefault(record.machine_id, []).append(server)
        return EndpointView(wish.port, LOOPBACK, pages.port_of(server), "http")


async def open_virtual() -> VirtualCarrier:
    page = await pages.open_port(PortWish(80, "http"), 0, {"cloud": "sandbox", "mode": "virtual"})
    banner = await pages.open_banner(VIRTUAL_BANNER)
    return VirtualCarrier(pages.port_of(page), pages.port_of(banner))


def _ports(record: Record) -> list[PortWish]:
    return [PortWish(SSH_PORT, "tcp"), *(wish for wish in record.ports if wish.port != SSH_PORT)]


def _facts(record: Record) -> dict[str, str]:
    return {
        "machine": record.machine_id,
        "label": record.label,
        "gpu": f"{record.gpu_count} x {record.gpu}" if record.gpu_count else record.gpu,
        "region": record.region,
        "host": record.host_id,
        "image": record.image,
    }


def _agent_environment(record: Record, home: Path, homes: Homes) -> dict[str, str]:
    """What the agent is told; no agent runs in a machine that was ordered without one."""
    if not record.agent_env:
        return {}
    places = {
        "DUMONT_AGENT_DIR": str(home / PRIVATE),
        "DUMONT_AGENT_WORKSPACE": str(home / "workspace"),
        "DUMONT_AGENT_GATEWAY_FILE": str(homes.gateway_file),
        "DUMONT_AGENT_GPU_FILE": str(homes.gpu_file(record.machine_id)),
    }
    return {"DUMONT_AGENT_SCOPE": "parent", **places, **record.agent_env}


async def _wait_for_end(handle: int | None, grace_s: float) -> None:
    if handle is None:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


def _platform_key(path: Path) -> str:
    """The key pair that opens machines ordered without one; made once. Returns the public half."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    public = path.with_suffix(".pub")
    if not path.exists() or not public.exists():
        ssh: Any = asyncssh  # its types are partial
        key = ssh.generate_private_key("ssh-ed25519", comment="dumont-sandbox")
        replace(public, key.export_public_key())
        replace(path, key.export_private_key())
    return public.read_text().strip()
