"""The warmed parent of all machines: a small single-threaded process that has everything imported and only forks.

`start` is called by `__main__` before the daemon has an event loop, threads or sockets, so that machines inherit none
of them; `Zygote.boot` is called by `carriers`. The zygote leaves when the daemon's end of the socket closes, however
the daemon ended; machines do not notice. It reports a new machine's process number; the machine itself then reports
through the pipe that came with the order.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import traceback
from typing import NoReturn

import msgspec
from msgspec import Struct

from services.sandbox.leader import AgentMain, BootOrder, BootReport, run_machine, warm

ORDER_BYTES_MAX = 192 * 1024  # below the kernel's default socket buffer of 208 KiB: one order is one packet
HELLO = b"ready"
WARM_TIMEOUT_S = 30.0  # imports take about a second on a busy host
FORK_TIMEOUT_S = 10.0
REPORT_TIMEOUT_S = 20.0  # a machine boots in well under 100 ms on an idle host
REPORT_BYTES_MAX = 16 * 1024


class ZygoteLost(Exception):
    """The warmed parent died: a bug, or somebody killed it. The daemon ends too and is started again with a new one."""


class BootFailed(Exception):
    """The machine ended, or said nothing in time, before it was up."""


class Forked(Struct, frozen=True):
    """The zygote's answer to an order."""

    pid: int
    error: str = ""


class Zygote:
    """The daemon's end."""

    def __init__(self, link: socket.socket, pid: int) -> None:
        self._link = link
        self._turn = asyncio.Lock()
        self.pid = pid

    async def hello(self) -> None:
        """Wait until the zygote has imported everything."""
        async with asyncio.timeout(WARM_TIMEOUT_S):
            if await self._receive() != HELLO:
                raise ZygoteLost("the warmed parent said something else than hello")

    async def lost(self) -> None:
        """Wait until the zygote is dead, and raise ZygoteLost."""
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        handle = os.pidfd_open(self.pid)
        loop.add_reader(handle, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
        raise ZygoteLost("the warmed parent is gone")

    async def fork(self, order: BootOrder) -> tuple[int, int]:
        """Start a machine. Returns its leader's process number and the pipe on which it will report."""
        packet = msgspec.json.encode(order)
        if len(packet) > ORDER_BYTES_MAX:
            raise BootFailed(f"the order is larger than {ORDER_BYTES_MAX} bytes")
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            async with self._turn, asyncio.timeout(FORK_TIMEOUT_S):
                # One order at a time, so the packet always fits the socket's buffer and this never blocks.
                socket.send_fds(self._link, [packet], [writing])
                answer = msgspec.json.decode(await self._receive(), type=Forked)
        except (OSError, TimeoutError) as error:
            os.close(reading)
            raise ZygoteLost(f"the warmed parent does not answer: {error}") from error
        except asyncio.CancelledError:
            os.close(reading)  # a machine that nobody will hear ends itself
            raise
        finally:
            os.close(writing)
        if not answer.pid:
            os.close(reading)
            raise BootFailed(answer.error)
        return answer.pid, reading

    async def _receive(self) -> bytes:
        packet = await asyncio.get_running_loop().sock_recv(self._link, ORDER_BYTES_MAX)
        if not packet:
            raise ZygoteLost("the warmed parent is gone")
        return packet


async def read_report(reading: int) -> BootReport:
    """What the machine says when it is up; closes the pipe. Raises BootFailed."""
    loop = asyncio.get_running_loop()
    content = bytearray()
    ended = asyncio.Event()

    def take() -> None:
        with contextlib.suppress(BlockingIOError):
            part = os.read(reading, REPORT_BYTES_MAX)
            content.extend(part)
            if not part or len(content) > REPORT_BYTES_MAX:
                ended.set()

    loop.add_reader(reading, take)
    try:
        async with asyncio.timeout(REPORT_TIMEOUT_S):
            await ended.wait()
        return msgspec.json.decode(bytes(content), type=BootReport)
    except (TimeoutError, msgspec.DecodeError) as error:
        raise BootFailed(f"the machine did not come up: {error}") from error
    finally:
        loop.remove_reader(reading)
        os.close(reading)


def start(agent: AgentMain) -> Zygote:
    """Fork the zygote. Only before this process has an event loop or threads."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ORDER_BYTES_MAX + 64 * 1024)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _live(theirs.fileno(), agent)
    theirs.close()
    ours.setblocking(False)
    return Zygote(ours, pid)


def _live(link_fd: int, agent: AgentMain) -> NoReturn:
    """The zygote's whole life. Never returns into the daemon's code."""
    status = 1
    try:
        # The daemon's own end decides: signals meant for its process group (Ctrl-C) are not for us.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # machines are reaped by the kernel; pidfds tell who ended
        close_all_but(link_fd)
        warm()
        gc.collect()
        gc.freeze()  # the collector would otherwise write to, and so copy, every shared page
        _serve(socket.socket(fileno=link_fd), agent)
        status = 0
    except BaseException:  # whatever it is, it must not unwind into the daemon's frames
        traceback.print_exc()
    finally:
        os._exit(status)


def _serve(link: socket.socket, agent: AgentMain) -> None:
    link.send(HELLO)
    while True:
        packet, descriptors, _, _ = socket.recv_fds(link, ORDER_BYTES_MAX, 1)
        if not packet:
            return
        try:
            pid = os.fork()
        except OSError as error:
            answer = Forked(0, f"cannot fork: {error}")
        else:
            if pid == 0:
                run_machine(msgspec.json.decode(packet, type=BootOrder), descriptors[0], agent)
            answer = Forked(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        link.send(msgspec.json.encode(answer))


def close_all_but(*kept: int) -> None:
    """Close every inherited descriptor beyond the standard three, except `kept`."""
    lowest = 3
    for descriptor in sorted(kept):
        os.closerange(lowest, descriptor)
        lowest = descriptor + 1
    os.closerange(lowest, os.sysconf("SC_OPEN_MAX"))
