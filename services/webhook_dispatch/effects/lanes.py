"""What is waiting to be sent, and whose turn it is. No I/O and no clock: instants are handed in.

Order: deliveries of one instance to one endpoint stand in a lane, and only its head is ever in flight or waiting for a
retry. Other lanes of the endpoint go on.
Fairness: accounts take turns, within an account its endpoints take turns; an endpoint, an account and the process each
have a cap on what is in flight. An endpoint that failed last time is in doubt and gets a small cap, so a receiver that
hangs holds few places however much is meant for it.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field

from proto.webhook_dispatch.words import Delivery
from services.webhook_dispatch.effects.directory import Target

BACKLOG_MAX = 50_000  # of one endpoint, about 300 bytes each; what comes then is skipped, visibly, until it recovers
PROCESS_IN_FLIGHT_MAX = 200
ACCOUNT_IN_FLIGHT_MAX = 100
ENDPOINT_IN_FLIGHT_MAX = 64
DOUBTFUL_IN_FLIGHT_MAX = 4


@dataclass(slots=True, eq=False)
class Parcel:
    """One delivery in memory. `delivery` is None when its bytes are in the rows only; `public_seq` keeps its place."""

    delivery_id: str
    event_type: str
    lane: str
    public_seq: int
    delivery: Delivery | None
    taken_on_s: float = 0.0
    attempts: int = 0
    tries: int = 0
    is_noted: bool = False  # told to the recorder, bytes and all
    is_recorded: bool = False
    is_marked: bool = False  # the cursor over PUB waits for it to be recorded


@dataclass(slots=True, eq=False)
class Box:
    """One endpoint's lanes."""

    target: Target
    account: Account
    lanes: dict[str, deque[Parcel]] = field(default_factory=dict[str, "deque[Parcel]"])
    ready: deque[str] = field(default_factory=deque[str])
    in_flight: int = 0
    size: int = 0
    is_doubtful: bool = False
    is_offered: bool = False
    is_gone: bool = False
    waits_for_slot: bool = False  # its rate limit's next slot is in the heap
    next_slot_s: float = 0.0
    failing_from_s: float | None = None

    @property
    def cap(self) -> int:
        return DOUBTFUL_IN_FLIGHT_MAX if self.is_doubtful else ENDPOINT_IN_FLIGHT_MAX

    def may_send(self) -> bool:
        is_free = not (self.is_gone or self.waits_for_slot) and self.in_flight < self.cap
        return is_free and bool(self.ready) and self.target.status == "enabled"


@dataclass(slots=True, eq=False)
class Account:
    """The endpoints of one account that may send, in turn."""

    turn: deque[Box] = field(default_factory=deque[Box])
    in_flight: int = 0
    is_offered: bool = False


class Lanes:
    """All of them. Every method is O(1) or O(log n)."""

    def __init__(self) -> None:
        self.boxes: dict[str, Box] = {}
        self.in_flight = 0
        self.size = 0
        self._accounts: dict[str, Account] = {}
        self._turn: deque[Account] = deque()
        self._later: list[tuple[float, int, Box, str]] = []  # due, tie-breaker, box, lane ("" = a rate limit's slot)
        self._numbers = itertools.count()

    def box(self, target: Target) -> Box:
        found = self.boxes.get(target.endpoint_id)
        if found is None:
            account = self._accounts.setdefault(target.account_id, Account())
            found = self.boxes[target.endpoint_id] = Box(target, account)
        return found

    def add(self, box: Box, parcel: Parcel, *, due_s: float | None = None) -> None:
        """To the end of its lane. `due_s`: not before then, if it is the first of its lane."""
        box.size += 1
        self.size += 1
        lane = box.lanes.get(parcel.lane)
        if lane is not None:
            lane.append(parcel)
            return
        box.lanes[parcel.lane] = deque((parcel,))
        if due_s is None:
            box.ready.append(parcel.lane)
            self.offer(box)
        else:
            heapq.heappush(self._later, (due_s, next(self._numbers), box, parcel.lane))

    def take(self, now_s: float) -> tuple[Box, Parcel] | None:
        """The next to send, or None when nothing may be sent now."""
        if self.in_flight >= PROCESS_IN_FLIGHT_MAX:
            return None
        while self._turn:
            account = self._turn.popleft()
            account.is_offered = False
            box = self._next_box(account, now_s)
            if box is None:
                continue
            parcel = box.lanes[box.ready.popleft()][0]
            self.in_flight += 1
            account.in_flight += 1
            box.in_flight += 1
            if box.target.rate_limit_per_s:
                box.next_slot_s = max(now_s, box.next_slot_s) + 1 / box.target.rate_limit_per_s
            self.offer(box)
            self._offer_account(account)
            return box, parcel
        return None

    def sent(self, box: Box, parcel: Parcel) -> None:
        """It is done with, delivered or given up: the next of its lane is ready."""
        self._landed(box)
        self._leave(box, parcel)
        self.offer(box)

    def later(self, box: Box, parcel: Parcel, due_s: float) -> None:
        """Its lane waits with it."""
        self._landed(box)
        heapq.heappush(self._later, (due_s, next(self._numbers), box, parcel.lane))
        self.offer(box)

    def wake(self, now_s: float) -> None:
        """Lanes whose time has come are ready."""
        while self._later and self._later[0][0] <= now_s:
            _, _, box, lane = heapq.heappop(self._later)
            if not lane:
                box.waits_for_slot = False
            elif lane in box.lanes:
                box.ready.append(lane)
            self.offer(box)

    def next_due_s(self) -> float | None:
        return self._later[0][0] if self._later else None

    def drop(self, endpoint_id: str) -> list[Parcel]:
        """Forget a deleted endpoint; returns what was waiting for it."""
        box = self.boxes.pop(endpoint_id, None)
        if box is None:
            return []
        box.is_gone = True
        left = [parcel for lane in box.lanes.values() for parcel in lane]
        self.size -= box.size
        box.size = 0
        box.lanes.clear()
        box.ready.clear()
        return left

    def offer(self, box: Box) -> None:
        """Call when something about the box has changed that may let it send."""
        if not box.is_offered and box.may_send():
            box.is_offered = True
            box.account.turn.append(box)
            self._offer_account(box.account)

    def _offer_account(self, account: Account) -> None:
        if account.turn and not account.is_offered and account.in_flight < ACCOUNT_IN_FLIGHT_MAX:
            account.is_offered = True
            self._turn.append(account)

    def _next_box(self, account: Account, now_s: float) -> Box | None:
        while account.turn:
            box = account.turn.popleft()
            box.is_offered = False
            if not box.may_send():
                continue
            if box.next_slot_s <= now_s:
                return box
            box.waits_for_slot = True
            heapq.heappush(self._later, (box.next_slot_s, next(self._numbers), box, ""))
        return None

    def _landed(self, box: Box) -> None:
        self.in_flight -= 1
        box.in_flight -= 1
        box.account.in_flight -= 1
        self._offer_account(box.account)

    def _leave(self, box: Box, parcel: Parcel) -> None:
        lane = box.lanes.get(parcel.lane)
        if lane is None:
            return  # the endpoint was deleted meanwhile
        lane.popleft()
        box.size -= 1
        self.size -= 1
        if lane:
            box.ready.append(parcel.lane)
        else:
            del box.lanes[parcel.lane]
