"""One machine's leading process: drops privileges, serves SSH and HTTP, keeps the agent running.

Forked by the zygote (`run_machine`, which never returns). Owns `.dumont/` in the machine's directory: the host key, the
log and `leader.json`, from which a restarted daemon learns who leads the machine and where it listens.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import msgspec
from msgspec import Struct

from libs.process import die_with_parent, name_process
from services.sandbox import logs, pages, shell
from services.sandbox.processes import MACHINE_VARIABLE, identity, send
from services.sandbox.records import ProcessId, replace
from services.sandbox.wire import EndpointView, PortWish

# The agent: runs until it returns an exit status. It is handed in, as a disk image is handed to a cloud.
AgentMain: TypeAlias = Callable[[Mapping[str, str]], int]

PRIVATE = ".dumont"
REPORT_FILE = "leader.json"
SSH_PORT = 22
LOOPBACK = "127.0.0.1"
AGENT_RESTART_STATUS = 3  # the agent asked to be started anew
AGENT_RETRY_MIN_S, AGENT_RETRY_MAX_S = 1.0, 60.0
AGENT_FAILURES_MAX = 10  # more would not make the pause longer
AGENT_FORGIVEN_AFTER_S = 30.0  # alive this long, it starts again from the shortest pause
PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE = 36, 4  # linux/prctl.h
# The standard library loads these on first use; its files may be out of reach for a machine's user.
LAZY_MODULES = (
    "encodings.idna",
    "encodings.ascii",
    "encodings.latin_1",
    "concurrent.futures.thread",
    "stringprep",
    "pty",
)
_libc = ctypes.CDLL(None, use_errno=True)


class BootOrder(Struct, frozen=True):
    """All that a machine needs to come up. `endpoints` are those of its last run, to be had again if they are free."""

    machine_id: str
    directory: str
    facts: dict[str, str]
    ports: tuple[PortWish, ...]
    endpoints: tuple[EndpointView, ...]
    authorized_keys: str
    env: dict[str, str]
    agent_env: dict[str, str]
    start_command: str
    user_id: int = 0  # 0: stay who we are
    group_id: int = 0  # of the shared volume; 0: none
    unwell_until: float = 0.0

    def __repr__(self) -> str:
        return f"BootOrder({self.machine_id})"


class BootReport(Struct, frozen=True):
    """Who leads the machine and where it listens. `ended` is set when it went down in order."""

    process: ProcessId
    endpoints: tuple[EndpointView, ...]
    ended: str = ""


def warm() -> None:
    """Do before forking what every machine would otherwise do on demand, as its unprivileged user."""
    for name in LAZY_MODULES:
        importlib.import_module(name)
    shell.warm()
    asyncio.new_event_loop().close()


def run_machine(order: BootOrder, report_fd: int, agent: AgentMain) -> NoReturn:
    """The life of one machine. Called in a fresh fork; ends by os._exit."""
    status = 1
    try:
        _become_machine(order, report_fd)
        status = _Leader(order, report_fd, agent).run()
    except BaseException:  # a fork must not unwind into the zygote's loop
        traceback.print_exc()
    finally:
        os._exit(status)


def _become_machine(order: BootOrder, report_fd: int) -> None:
    """Leave everything that was inherited: session, signals, descriptors, user."""
    os.setsid()
    name_process("dumont-machine")
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # what detaches itself inside stays our descendant
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    _close_all_but(report_fd)
    if order.user_id:
        os.setgroups([order.group_id] if order.group_id else [])
        os.setresgid(order.user_id, order.user_id, order.user_id)
        os.setresuid(order.user_id, order.user_id, order.user_id)
    # Not dumpable: the machine's own shells must not read what this fork inherited from the daemon's memory.
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.umask(0o002 if order.group_id else 0o022)
    os.chdir(Path(order.directory, "workspace"))
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(Path(order.directory, PRIVATE, "machine.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(log)


def _close_all_but(kept: int) -> None:
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


class _OneThreadLoop(asyncio.SelectorEventLoop):
    """A loop without a thread pool: a process that forks must not have threads. What asyncssh hands to it is short
    (it reads options); what a customer's SFTP client asks for is done in the loop by asyncssh itself."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # noqa: ARG002
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # handed to whoever awaits it, as a pool would
            future.set_exception(error)
        return future


class _Leader:
    """The event loop of one machine. Stopped only to fork the agent: no loop runs in a process that forks."""

    def __init__(self, order: BootOrder, report_fd: int, agent: AgentMain) -> None:
        self._order = order
        self._report_fd = report_fd
        self._agent = agent
        self._agent_pid = 0
        self._agent_failures = 0
        self._agent_started_s = 0.0
        self._private = Path(order.directory, PRIVATE)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._children = shell.Children()
        self._endpoints: list[EndpointView] = []

    def run(self) -> int:
        self._start_agent()
        self._loop = _OneThreadLoop()
        self._loop.add_signal_handler(signal.SIGTERM, self._end)
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        opening = self._loop.create_task(self._open())
        opening.add_done_callback(self._opened)
        self._loop.call_later(logs.LOOK_PAUSE_S, self._shorten_logs)
        while True:
            self._loop.run_forever()
            self._start_agent()

    def _shorten_logs(self) -> None:
        assert self._loop is not None
        for name in logs.LOG_FILES:
            logs.shorten(self._private / name)
        self._loop.call_later(logs.LOOK_PAUSE_S, self._shorten_logs)

    def _opened(self, opening: asyncio.Task[None]) -> None:
        if opening.exception() is not None:
            traceback.print_exception(opening.exception())
            os._exit(1)  # the daemon sees the pipe close without a report

    async def _open(self) -> None:
        order = self._order
        environment = order.env | {MACHINE_VARIABLE: order.machine_id, "HOME": order.directory}
        opened = await shell.open_server(
            order.directory,
            private=self._private,
            port=self._last_port(SSH_PORT),
            authorized_keys=order.authorized_keys,
            environment=environment,
            children=self._children,
        )
        self._endpoints.append(EndpointView(SSH_PORT, LOOPBACK, opened, "tcp"))
        for wish in order.ports:
            if wish.port == SSH_PORT:
                continue
            unwell_until = order.unwell_until if wish.protocol == "http" else 0.0
            last = self._last_port(wish.port)
            listener = await pages.open_port(wish, last, order.facts, unwell_until=unwell_until)
            self._endpoints.append(EndpointView(wish.port, LOOPBACK, pages.port_of(listener), wish.protocol))
        self._report()
        if order.start_command:
            self._run_start_command(environment)

    def _last_port(self, port: int) -> int:
        return next((endpoint.public_port for endpoint in self._order.endpoints if endpoint.port == port), 0)

    def _report(self, ended: str = "") -> None:
        me = identity(os.getpid())
        assert me is not None, "a running process has an identity"
        content = msgspec.json.encode(BootReport(me, tuple(self._endpoints), ended))
        if self._report_fd >= 0:
            try:
                os.write(self._report_fd, content)
            except BrokenPipeError:
                os._exit(1)  # the daemon died or gave up: its successor boots this machine anew
            os.close(self._report_fd)
            self._report_fd = -1
        replace(self._private / REPORT_FILE, content)  # tells a successor of a daemon that dies from here on

    def _run_start_command(self, environment: Mapping[str, str]) -> None:
        with (self._private / "start.log").open("ab") as log:
            self._children.start(
                [shell.SHELL, "-c", self._order.start_command],
                cwd=Path(self._order.directory, "workspace"),
                env=shell.surroundings(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _start_agent(self) -> None:
        if not self._order.agent_env:
            return
        self._agent_started_s = time.monotonic()
        self._agent_pid = os.fork()
        if self._agent_pid == 0:
            _become_agent(self._agent, self._order)

    def _reap(self) -> None:
        for pid, status in self._children.reap():
            if pid == self._agent_pid:
                self._agent_ended(status)

    def _agent_ended(self, status: int) -> None:
        assert self._loop is not None
        self._agent_pid = 0
        if status == AGENT_RESTART_STATUS:
            self._agent_failures = 0
            self._loop.stop()
            return
        self._agent_failures = failures_in_a_row(self._agent_failures, time.monotonic() - self._agent_started_s)
        delay_s = min(AGENT_RETRY_MIN_S * 2 ** (self._agent_failures - 1), AGENT_RETRY_MAX_S)
        self._loop.call_later(delay_s, self._loop.stop)

    def _end(self) -> None:
        """SIGTERM: go down in order. Shells have sessions of their own and are told one by one."""
        self._report(ended="stopped")
        for pid in [*self._children.pids(), *([self._agent_pid] if self._agent_pid else [])]:
            send(pid, signal.SIGHUP)
            send(pid, signal.SIGTERM)
        os._exit(0)


def failures_in_a_row(before: int, lived_s: float) -> int:
    """With the one that ended just now. A machine lives for months: what failed long ago must not slow it down."""
    return 1 if lived_s >= AGENT_FORGIVEN_AFTER_S else min(before + 1, AGENT_FAILURES_MAX)


def _become_agent(agent: AgentMain, order: BootOrder) -> NoReturn:
    status = 1
    try:
        # What the leader's loop owns must not be touched by destructors here: freeze it, then cut the descriptors.
        gc.freeze()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _close_all_but(2)
        die_with_parent(signal.SIGTERM)  # however the leader ends
        name_process("dumont-agent")
        status = agent(order.agent_env)
    except BaseException:  # a fork must not unwind into the leader's loop
        traceback.print_exc()
    finally:
        os._exit(status)
