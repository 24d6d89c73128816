"""Boot, keep alive, stop: the only loop of the supervisor.

Called by `__main__`. Owns the signals of the process and the restart policy. One thread, no event loop: a `select` on
the wake-up pipe of signals, and looking at every member after each wake.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType

from libs.embedded.child import ServerDied
from libs.embedded.state import Member as MemberState
from services.supervisor.members import Member, born_at

BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 5.0
FORGIVEN_AFTER_S = 30.0  # alive this long, a member starts again from the shortest pause
LOUD_DEATHS = 3
LOUD_WINDOW_S = 60.0
READY_TIMEOUT_S = 120.0  # crash recovery of a large log and database, and the first replay of a projection
READY_POLL_S = 0.02
POLL_MAX_S = 1.0  # a signal wakes us at once; this only bounds a lost one


class BootFailed(Exception):
    """Members did not become ready; the text says which and why."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        super().__init__(text)
        self.names = names


class StopAsked(Exception):
    """SIGTERM or SIGINT came while booting."""


@dataclass
class Watched:
    """A member and its past."""

    member: Member
    started_s: float = 0.0
    backoff_s: float = BACKOFF_MIN_S
    restart_due_s: float | None = None
    deaths: int = 0
    last_end: str = ""
    recent_deaths_s: deque[float] = field(default_factory=lambda: deque(maxlen=LOUD_DEATHS))

    @property
    def is_failing(self) -> bool:
        recent = self.recent_deaths_s
        return len(recent) == LOUD_DEATHS and time.monotonic() - recent[0] <= LOUD_WINDOW_S


class Watch:
    """`changed()` is called whenever a pid or a death count is new."""

    def __init__(self, *, changed: Callable[[], None], warn: Callable[[str], None]) -> None:
        self._all: list[Watched] = []
        self._changed = changed
        self._warn = warn
        self._stops_asked = 0
        self._wake_in, self._wake_out = os.pipe()
        for descriptor in (self._wake_in, self._wake_out):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _do_nothing)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)

    @property
    def descriptors(self) -> Sequence[int]:
        """Ours alone: a forked child closes them."""
        return (self._wake_in, self._wake_out)

    def states(self) -> dict[str, MemberState]:
        return {
            watched.member.name: MemberState(
                pid=watched.member.pid,
                born_at=born_at(watched.member.pid),
                deaths=watched.deaths,
                last_end=watched.last_end,
                failing=watched.is_failing,
            )
            for watched in self._all
        }

    def spawn(self, member: Member) -> None:
        """Start a member and answer for it from now on."""
        watched = Watched(member)
        self._all.append(watched)
        self._start(watched)

    def wait_ready(self, names: Sequence[str]) -> None:
        """Wait until these members are ready, restarting the dead. Raises BootFailed or StopAsked."""
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        waiting = [watched for watched in self._all if watched.member.name in names]
        while waiting := [watched for watched in waiting if not watched.member.is_ready()]:
            if self._stops_asked:
                raise StopAsked
            for watched in waiting:
                if watched.is_failing:
                    name = watched.member.name
                    raise BootFailed(f"{name} died {LOUD_DEATHS} times: {watched.last_end}", [name])
            if time.monotonic() > deadline_s:
                late = [watched.member.name for watched in waiting]
                raise BootFailed(f"not ready within {READY_TIMEOUT_S:.0f} s: {', '.join(late)}", late)
            self._look(READY_POLL_S)

    def keep_alive(self) -> None:
        """Restart the dead until a stop is asked for."""
        while not self._stops_asked:
            self._look(POLL_MAX_S)

    def stop_all(self) -> None:
        """End every member, last started first. A second stop signal kills without grace."""
        for watched in reversed(self._all):
            watched.restart_due_s = None
            self._stop(watched.member)

    def _stop(self, member: Member) -> None:
        member.ask_to_stop()
        deadline_s = time.monotonic() + member.grace_s
        asked = self._stops_asked
        while member.pid and member.ended() is None:
            if time.monotonic() > deadline_s or self._stops_asked > max(asked, 1):
                if time.monotonic() > deadline_s:
                    self._warn(f"{member.name} did not stop within {member.grace_s:.0f} s and is killed")
                member.kill()
                deadline_s = float("inf")
            self._sleep(READY_POLL_S)

    def _look(self, wait_max_s: float) -> None:
        self._sleep(min(wait_max_s, self._until_restart_s()))
        now_s = time.monotonic()
        for watched in self._all:
            how = watched.member.ended()
            if how is not None and not self._stops_asked:
                self._on_death(watched, how, now_s)
            if watched.restart_due_s is not None and watched.restart_due_s <= now_s and not self._stops_asked:
                self._start(watched)

    def _start(self, watched: Watched) -> None:
        watched.restart_due_s = None
        watched.started_s = time.monotonic()
        try:
            watched.member.spawn()
        except (ServerDied, OSError) as error:
            self._on_death(watched, str(error), watched.started_s)
        self._changed()

    def _on_death(self, watched: Watched, how: str, now_s: float) -> None:
        if now_s - watched.started_s >= FORGIVEN_AFTER_S:
            watched.backoff_s = BACKOFF_MIN_S
        watched.deaths += 1
        watched.last_end = how
        watched.recent_deaths_s.append(now_s)
        watched.restart_due_s = now_s + watched.backoff_s
        name = watched.member.name
        self._warn(f"{name} died ({how}); starting it again in {watched.backoff_s:.1f} s")
        if watched.is_failing:
            self._warn(f"*** {name} died {LOUD_DEATHS} times within {LOUD_WINDOW_S:.0f} s: read its log ***")
        watched.backoff_s = min(watched.backoff_s * 2, BACKOFF_MAX_S)
        self._changed()

    def _until_restart_s(self) -> float:
        due_s = [watched.restart_due_s for watched in self._all if watched.restart_due_s is not None]
        return max(0.0, min(due_s) - time.monotonic()) if due_s else POLL_MAX_S

    def _sleep(self, seconds: float) -> None:
        """Until a signal comes or the time is over."""
        readable, _, _ = select.select([self._wake_in], [], [], seconds)
        if readable:
            os.read(self._wake_in, 4096)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stops_asked += 1


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A handler must exist for SIGCHLD to be written to the wake-up pipe."""
    del number, frame
