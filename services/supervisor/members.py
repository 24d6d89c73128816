"""One supervised process: a server program, or a service forked from this warmed parent.

Called by `watch`. Owns what a child is before its service's `main` begins: its own session, log, environment, signal
handlers, and the promise to die with the supervisor.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil

from libs import config
from libs.embedded.child import ServerDied, rotated
from libs.embedded.nats import NatsServer
from libs.embedded.postgres import PostgresServer
from libs.embedded.rclone import StorageServer
from libs.process import READY_LINE, die_with_parent, name_process

SERVICE_GRACE_S = 5.0  # requests in flight have their own deadlines of at most a few seconds
SANDBOX_GRACE_S = 15.0  # it ends its machines first, each with a grace of its own
BIRTH_TOLERANCE_S = 0.05  # the kernel counts in hundredths of a second
SERVER_GRACE_S = 10.0  # a checkpoint, or the flush of streams


class Member(Protocol):
    """What `watch` needs of a process, whatever it is."""

    name: str
    grace_s: float

    @property
    def pid(self) -> int:
        """0 when it does not run."""
        ...

    def spawn(self) -> None:
        """Start without waiting. Raises ServerDied when it cannot even be started."""
        ...

    def is_ready(self) -> bool: ...

    def ended(self) -> str | None:
        """How it ended, in words, once; None while it runs or when that was already told."""
        ...

    def ask_to_stop(self) -> None: ...

    def kill(self) -> None: ...


class ServerMember:
    """nats-server, PostgreSQL or the object storage."""

    def __init__(self, name: str, server: NatsServer | PostgresServer | StorageServer) -> None:
        self.name = name
        self.grace_s = SERVER_GRACE_S
        self._server = server
        self._is_running = False

    @property
    def pid(self) -> int:
        return self._server.pid

    def spawn(self) -> None:
        self._server.spawn()
        self._is_running = True

    def is_ready(self) -> bool:
        return self.pid != 0 and self._server.answers()

    def ended(self) -> str | None:
        process = self._server.child.process
        if not self._is_running or process is None or process.poll() is None:
            return None
        self._is_running = False
        return _how(process.returncode)

    def ask_to_stop(self) -> None:
        self._server.child.ask_to_stop()

    def kill(self) -> None:
        self._server.child.signal(signal.SIGKILL)


class ServiceMember:
    """A service in a forked child: shares the parent's imported modules, nothing else."""

    def __init__(
        self,
        name: str,
        module: str,
        *,
        environment: Mapping[str, str],
        log_path: Path,
        private_descriptors: Callable[[], Sequence[int]],
        grace_s: float = SERVICE_GRACE_S,
    ) -> None:
        self.name = name
        self.grace_s = grace_s
        self._module = module
        self._environment = environment
        self._log_path = log_path
        self._private_descriptors = private_descriptors
        self._ready_fd = -1
        self._said = b""
        self.pid = 0

    @property
    def descriptors(self) -> Sequence[int]:
        """The supervisor's end of the pipe while it waits: siblings close it."""
        return [self._ready_fd] if self._ready_fd >= 0 else []

    def spawn(self) -> None:
        self._forget_pipe()
        self._said = b""
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        log = os.open(rotated(self._log_path), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        sys.stdout.flush()
        sys.stderr.flush()
        parent_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(ours)
            self._live(parent_pid, theirs, log)
        os.close(theirs)
        os.close(log)
        self._ready_fd = ours
        self.pid = pid

    def is_ready(self) -> bool:
        if self.pid != 0 and self._ready_fd >= 0:
            self._listen()
        return self.pid != 0 and self._said == READY_LINE

    def ended(self) -> str | None:
        if self.pid == 0:
            return None
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        self.pid = 0
        self._forget_pipe()
        return _how(os.waitstatus_to_exitcode(status))

    def ask_to_stop(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.pid != 0:  # not waited for yet, so the pid cannot be anybody else's
            os.kill(self.pid, number)

    def _listen(self) -> None:
        try:
            self._said += os.read(self._ready_fd, len(READY_LINE))
        except BlockingIOError:
            return
        if self._said == READY_LINE:
            self._forget_pipe()

    def _forget_pipe(self) -> None:
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1

    def _live(self, parent_pid: int, ready_fd: int, log_fd: int) -> None:
        """The child's whole life. Never returns: unwinding into the parent's code would stop the parent's children."""
        status = 1
        try:
            self._settle(parent_pid, log_fd)
            config.adopt({**self._environment, "DUMONT_READY_FD": str(ready_fd)})
            importlib.import_module(self._module).main()
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:  # the edge of the process: whatever it is, it ends here
            traceback.print_exc()
        finally:
            atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage] - buffered log lines; os._exit skips them
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _settle(self, parent_pid: int, log_fd: int) -> None:
        os.setsid()  # a Ctrl-C at the terminal reaches the supervisor alone, which stops us in order
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent()
        if os.getppid() != parent_pid:
            os._exit(1)
        for descriptor in self._private_descriptors():
            os.close(descriptor)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (log_fd, 1), (log_fd, 2)):
            os.dup2(source, target)
        os.close(null)
        os.close(log_fd)
        name_process(f"dumont-{self.name}")
        gc.enable()


def end_leftovers(pids: Mapping[int, float]) -> list[int]:
    """End processes of an earlier run that outlived it (a system without PR_SET_PDEATHSIG), told by pid and start time.

    Returns the pids that were still there.
    """
    found: list[psutil.Process] = []
    for pid, born_at in pids.items():
        try:
            process = psutil.Process(pid)
            is_same = abs(process.create_time() - born_at) < BIRTH_TOLERANCE_S
            if is_same and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    for process in found:
        process.terminate()
    _, stubborn = psutil.wait_procs(found, SERVER_GRACE_S)
    for process in stubborn:
        process.kill()
    psutil.wait_procs(stubborn, SERVER_GRACE_S)
    return [process.pid for process in found]


def born_at(pid: int) -> float:
    """When the process with this pid started, unix seconds; 0 when there is none."""
    try:
        return psutil.Process(pid).create_time() if pid else 0.0
    except psutil.NoSuchProcess:
        return 0.0


def _how(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


__all__ = ["Member", "ServerDied", "ServerMember", "ServiceMember", "born_at", "end_leftovers"]
