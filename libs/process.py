"""One service as one process: loop, signals, the word "ready", and dying with the parent.

Called by each service's `__main__` (`run(serve)`), by whoever starts processes (`die_with_parent`) and by the CLI's
rebuild (`loop_runner`). Owns the event loop of the process and the meaning of its exit status: 0 when asked to stop, 1
when `serve` failed (a bug: the supervisor starts it again, docs/adr/0007).

The supervisor forks services from a warmed parent, so nothing here may happen at import time.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Annotated, NoReturn

from msgspec import Struct

from libs import config

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_NAME = 15
NAME_BYTES_MAX = 15  # the kernel keeps 16 with the NUL
READY_LINE = b"ready\n"
# Allocations between two looks of the garbage collector: with Python's 700 it took a fifth of a busy service's time
# (webhook dispatch: 269 us a delivery, 220 with this). What it waits for are rare cycles, a few MB at most.
COLLECT_AFTER = 50_000
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class ReadySettings(Struct, frozen=True):
    """How a service says that it can be used."""

    ready_fd: (
        Annotated[int, config.setting("inherited pipe on which the supervisor waits for one line", unit="fd", ge=3)]
        | None
    ) = None


class Running:
    """A running service: `stop` is set when it should end in order; `ready()` once it can be used."""

    def __init__(self, stop: asyncio.Event, ready_fd: int | None) -> None:
        self.stop = stop
        self._ready_fd = ready_fd

    def ready(self) -> None:
        """Tell the supervisor, once; later calls do nothing."""
        if self._ready_fd is None:
            return
        descriptor, self._ready_fd = self._ready_fd, None
        try:
            os.write(descriptor, READY_LINE)
        except BrokenPipeError:
            pass  # nobody waits any more; being ready is still true
        finally:
            os.close(descriptor)


def run(serve: Callable[[Running], Awaitable[None]]) -> None:
    """Run `serve` until it returns. SIGTERM and SIGINT set `Running.stop`; a second one cancels `serve`.

    Raises SystemExit(1) after printing the traceback when `serve` raises: an unknown error must not leave a half-dead
    process behind. Of settings that cannot be used it prints what is wrong with them and no traceback.
    """
    ready_fd = config.read(ReadySettings).ready_fd
    with loop_runner() as loop:
        try:
            loop.run(_serve_until_stopped(serve, ready_fd))
        except asyncio.CancelledError:
            sys.exit(1)
        except config.ConfigError as error:
            give_up(error)
        except Exception:  # the loop's own edge: everything that reaches it is a bug
            traceback.print_exc()
            sys.exit(1)


def give_up(error: Exception) -> NoReturn:
    """End over settings that cannot be used, without a traceback: nobody's bug, its words are for whoever set them."""
    sys.stderr.write(f"{error}\n")
    sys.exit(1)


def loop_runner() -> asyncio.Runner:
    """The event loop that services run on, and their garbage collector: also for others that do a service's work."""
    import uvloop  # noqa: PLC0415 - costs 10 ms, and processes that only import this module do not need it

    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


def die_with_parent(with_signal: int = signal.SIGKILL) -> None:
    """Ask the kernel to signal this process when the thread that started it ends (Linux; elsewhere nothing happens).

    Call it in the child, after any change of user (which clears it) and before exec (which keeps it). The parent may
    already be gone by then: callers that know its pid should compare `os.getppid()` afterwards.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, with_signal, 0, 0, 0)


def name_process(name: str) -> None:
    """Give a forked process its own name in `ps` and `top` (Linux; elsewhere nothing happens)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:NAME_BYTES_MAX], 0, 0, 0)


async def _serve_until_stopped(serve: Callable[[Running], Awaitable[None]], ready_fd: int | None) -> None:
    stop = asyncio.Event()
    task = asyncio.ensure_future(serve(Running(stop, ready_fd)))

    def ask_to_stop() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, ask_to_stop)
    await task
