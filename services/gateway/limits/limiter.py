"""The buckets of this replica, and its agreement with the other replicas (docs/adr: limits without a round trip).

Every bucket has one owner among the replicas, the same for all of them (rendezvous hashing over the names of those
alive). The owner decides at once, in memory. Another replica borrows: it asks the owner for a few requests' worth
(LEASE_PERMILLE of the limit) and spends them by itself; what it may spend was taken from the bucket beforehand, so
together they never let through more than the limit and what lies borrowed. Told "nothing left", it refuses by itself
until the owner's time is up.

When the list of replicas changes, an owner hands the buckets it no longer owns to the new one. A replica that is
killed takes at most one period with it: its buckets begin full elsewhere; the count of the day is in the log (`usage`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from libs.clock import Clock
from libs.peers import PeerAway, Peers
from libs.telemetry import Counter, logger
from services.gateway.limits.bucket import DAY_US, MICROS, Bucket, Quota, Standing

BUCKETS_MAX = 100_000  # about 400 bytes each; the one not used for longest is forgotten first
LEASE_PERMILLE = 20  # of the limit, shared by the borrowers: the limit holds within 2 % whoever is asked
ASK_S_MAX = 0.25  # normally 0.3 ms; longer than this the owner is taken for gone and we decide ourselves
ASKS_MAX = 6  # borrowed and spent by others before us so many times: say no, the next second will do
HANDOVER_MAX = 1_000  # buckets in one message, about 100 kB

_log = logger("limits")


class Charge(NamedTuple):
    """One request's worth of a bucket."""

    subject: str
    quota: Quota


class _Ask(Struct, frozen=True, array_like=True):
    subject: str
    quota: Quota
    want: int


class _Told(Struct, frozen=True, array_like=True):
    """Instants are relative: clocks of replicas need not agree."""

    granted: int
    limit: int
    remaining: int
    reset_in_us: int
    window: str
    retry_after_us: int


class _Handed(Struct, frozen=True, array_like=True):
    subject: str
    quota: Quota
    full_in_us: int
    day: int
    used: int


class _Entry:
    """A bucket as this replica knows it: its own when it is the owner, what it borrowed otherwise."""

    __slots__ = ("asking", "bucket", "epoch", "lease", "owner", "quota", "refused_until_us", "told", "waiting")

    def __init__(self, quota: Quota) -> None:
        self.bucket = Bucket()
        self.quota = quota
        self.owner = ""
        self.epoch = -1
        self.lease = 0
        self.told: Standing | None = None
        self.refused_until_us = 0
        self.asking: asyncio.Future[None] | None = None
        self.waiting = 0


class Limiter:
    """`noted(subject, day)` is how much of the day the log knows to be used, `asked` counts questions to owners."""

    def __init__(self, clock: Clock, peers: Peers, *, noted: Callable[[str, int], int], asked: Counter) -> None:
        self._clock = clock
        self._peers = peers
        self._noted = noted
        self._asked = asked
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._members: Sequence[str] = (peers.me,)
        self._epoch = 0

    async def join(self) -> None:
        await self._peers.join(answer=self._on_asked, hear=self._on_handed, changed=self._on_changed)

    async def keep_in_touch(self) -> None:
        await self._peers.keep_in_touch()

    async def leave(self) -> None:
        """Hand everything to the others, who must not start with full buckets."""
        self._members = self._peers.others
        self._epoch += 1
        if self._members:
            self._hand_over()
        await self._peers.leave()

    async def admit(self, charges: Sequence[Charge]) -> Standing:
        """All of the charges or none. The standing is that of the tightest bucket."""
        standing = self.try_admit(charges)
        for _ in range(ASKS_MAX):
            if standing is not None:
                return standing
            for charge in charges:
                entry = self._entry(charge, self._now_us())
                if entry.owner != self._peers.me and entry.lease < 1:
                    await self._borrow(charge.subject, entry)
            standing = self.try_admit(charges)
        quota = charges[0].quota
        return standing or Standing(quota.limit, 0, self._now_us() + MICROS, quota.window, MICROS)

    def try_admit(self, charges: Sequence[Charge]) -> Standing | None:
        """As `admit`, at once; None when an owner must be asked first."""
        now_us = self._now_us()
        me = self._peers.me
        entries: list[_Entry] = []
        for charge in charges:
            entry = self._entry(charge, now_us)
            if entry.owner == me:
                if entry.bucket.room(charge.quota, now_us) < 1:
                    return entry.bucket.standing(charge.quota, now_us)
            elif entry.lease < 1:
                return _refusal(entry, now_us)
            entries.append(entry)
        tightest: Standing | None = None
        for entry in entries:
            standing = self._spend(entry, now_us)
            if tightest is None or standing.remaining < tightest.remaining:
                tightest = standing
        return tightest

    def day_counts(self) -> Iterator[tuple[str, int, int]]:
        """(subject, day, requests) of the buckets that we own and that count days."""
        for subject, entry in self._entries.items():
            if entry.quota.per_day and entry.owner == self._peers.me and entry.bucket.used:
                yield subject, entry.bucket.day, entry.bucket.used

    @property
    def replicas(self) -> int:
        return len(self._members)

    def __len__(self) -> int:
        return len(self._entries)

    # Our own buckets ------------------------------------------------------------------------------------------------

    def _spend(self, entry: _Entry, now_us: int) -> Standing:
        if entry.owner == self._peers.me:
            entry.bucket.take(entry.quota, 1, now_us)
            standing = entry.bucket.standing(entry.quota, now_us)
            # The last one that passed is not refused: it only leaves nothing.
            return msgspec.structs.replace(standing, retry_after_us=0) if standing.retry_after_us else standing
        entry.lease -= 1
        told = entry.told
        assert told is not None, "who has borrowed has been told"
        return Standing(told.limit, told.remaining + entry.lease, told.reset_at_us, told.window)

    def _entry(self, charge: Charge, now_us: int) -> _Entry:
        subject = charge.subject
        entry = self._entries.get(subject)
        if entry is None:
            entry = self._entries[subject] = _Entry(charge.quota)
            if len(self._entries) > BUCKETS_MAX:
                self._entries.popitem(last=False)
        else:
            self._entries.move_to_end(subject)
            if entry.quota is not charge.quota and entry.quota != charge.quota:
                entry.bucket.change(entry.quota, charge.quota, now_us)
                entry.quota, entry.lease, entry.refused_until_us = charge.quota, 0, 0
        if entry.epoch != self._epoch:
            self._settle(subject, entry, now_us)
        return entry

    def _settle(self, subject: str, entry: _Entry, now_us: int) -> None:
        """Whose the bucket is, since the list of replicas has changed."""
        entry.epoch = self._epoch
        entry.owner = self._owner_of(subject)
        if entry.owner == self._peers.me:
            self._own(subject, entry, now_us)

    def _own(self, subject: str, entry: _Entry, now_us: int) -> None:
        """Begin with what we have been told, and with what the log knows of the day."""
        bucket, told = entry.bucket, entry.told
        entry.owner, entry.lease, entry.told = self._peers.me, 0, None
        if told is not None and told.window == entry.quota.window:
            bucket.full_at_us = max(bucket.full_at_us, told.reset_at_us)
        if entry.quota.per_day:
            day = now_us // DAY_US
            used = bucket.used if bucket.day == day else 0
            bucket.day, bucket.used = day, max(used, self._noted(subject, day))

    def _owner_of(self, subject: str) -> str:
        if len(self._members) == 1:
            return self._members[0]
        return max(self._members, key=lambda member: _weight(member, subject))

    def _now_us(self) -> int:
        return int(self._clock.now().timestamp() * MICROS)

    # Agreement with the others ------------------------------------------------------------------------------------

    async def _borrow(self, subject: str, entry: _Entry) -> None:
        """One question at a time per bucket; whoever comes meanwhile waits for its answer."""
        if entry.asking is not None:
            entry.waiting += 1
            try:
                await asyncio.shield(entry.asking)
            finally:
                entry.waiting -= 1
            return
        entry.asking = asyncio.get_running_loop().create_future()
        try:
            await self._ask_owner(subject, entry)
        finally:
            answered, entry.asking = entry.asking, None
            answered.set_result(None)

    async def _ask_owner(self, subject: str, entry: _Entry) -> None:
        quota, owner = entry.quota, entry.owner
        want = max(quota.limit * LEASE_PERMILLE // (1_000 * max(len(self._members) - 1, 1)), entry.waiting, 1)
        self._asked.add()
        try:
            answer = await self._peers.ask(owner, msgspec.json.encode(_Ask(subject, quota, want)), ASK_S_MAX)
        except PeerAway as away:
            _log.warning("limits.owner_away", cause=str(away))
            if entry.owner == owner:
                self._own(subject, entry, self._now_us())  # until the list of replicas says otherwise
            return
        told = msgspec.json.decode(answer, type=_Told)
        now_us = self._now_us()
        entry.lease += told.granted
        entry.told = Standing(told.limit, told.remaining, now_us + told.reset_in_us, told.window)
        entry.refused_until_us = 0 if told.granted else now_us + told.retry_after_us

    def _on_asked(self, data: bytes) -> bytes:
        """Also when we think that another is the owner: whoever asked will soon think so too."""
        ask = msgspec.json.decode(data, type=_Ask)
        now_us = self._now_us()
        entry = self._entry(Charge(ask.subject, ask.quota), now_us)
        granted = min(ask.want, entry.bucket.room(ask.quota, now_us))
        if granted:
            entry.bucket.take(ask.quota, granted, now_us)
        standing = entry.bucket.standing(ask.quota, now_us)
        return msgspec.json.encode(
            _Told(
                granted,
                standing.limit,
                standing.remaining,
                standing.reset_at_us - now_us,
                standing.window,
                standing.retry_after_us,
            )
        )

    def _on_changed(self) -> None:
        self._members = tuple(sorted((self._peers.me, *self._peers.others)))
        self._epoch += 1
        self._hand_over()

    def _hand_over(self) -> None:
        """Tell the new owners of buckets that were ours what is left in them."""
        now_us = self._now_us()
        handed: dict[str, list[_Handed]] = {}
        for subject, entry in self._entries.items():
            bucket = entry.bucket
            if entry.owner != self._peers.me or (bucket.full_at_us <= now_us and not entry.quota.per_day):
                continue
            owner = self._owner_of(subject)
            if owner != self._peers.me:
                left_us = max(bucket.full_at_us - now_us, 0)
                handed.setdefault(owner, []).append(_Handed(subject, entry.quota, left_us, bucket.day, bucket.used))
        for owner, buckets in handed.items():
            for start in range(0, len(buckets), HANDOVER_MAX):
                self._peers.tell(owner, msgspec.json.encode(buckets[start : start + HANDOVER_MAX]))

    def _on_handed(self, data: bytes) -> None:
        now_us = self._now_us()
        for handed in msgspec.json.decode(data, type=list[_Handed]):
            bucket = self._entry(Charge(handed.subject, handed.quota), now_us).bucket
            bucket.full_at_us = max(bucket.full_at_us, now_us + handed.full_in_us)
            if handed.day == bucket.day:
                bucket.used = max(bucket.used, handed.used)
            elif handed.day > bucket.day:
                bucket.day, bucket.used = handed.day, handed.used


def _refusal(entry: _Entry, now_us: int) -> Standing | None:
    """What the owner said, while it holds."""
    told = entry.told
    if told is None or entry.refused_until_us <= now_us:
        return None
    return Standing(told.limit, 0, told.reset_at_us, told.window, entry.refused_until_us - now_us)


def _weight(member: str, subject: str) -> bytes:
    return hashlib.blake2b(subject.encode(), key=member.encode()[:64], digest_size=8).digest()
