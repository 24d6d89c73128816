"""An account of any age loads from its last whole fact, and is what a fold from the beginning makes of it."""

from __future__ import annotations

from libs.clock import SystemClock
from libs.eventlog import Stored
from libs.eventlog.memory import MemoryLog
from libs.ids import SystemIds
from libs.runtime.aggregates import Aggregates
from libs.runtime.codec import EventDecoder, decode_commit
from services.billing.decider.account import ACCOUNT, BROUGHT_FORWARD_EVERY_MIN
from services.billing.rooms import SERVICE
from tests.spec.billing.ledgers import ACCOUNT_ID, GPU_PRICE, bought, rate, tick

SUBJECT = f"evt.billing.account.{ACCOUNT_ID}"
TICKS = 3 * BROUGHT_FORWARD_EVERY_MIN


class Counting(MemoryLog):
    """Knows how much was read."""

    read_messages = 0

    async def read(self, stream: str, subject: str, *, after_seq: int = 0) -> list[Stored]:
        found = list(await super().read(stream, subject, after_seq=after_seq))
        self.read_messages += len(found)
        return found


def over(log: MemoryLog) -> Aggregates:
    return Aggregates(SERVICE, log, SystemClock(), SystemIds())


async def test_a_long_life_loads_as_fast_as_a_short_one_and_as_the_same_account():
    log = Counting()
    ledgers = over(log)
    await ledgers.execute(bought(90_000))
    await ledgers.execute(rate(0, GPU_PRICE))
    for number in range(1, TICKS + 1):
        await ledgers.execute(tick(number * 60))
    log.read_messages = 0
    loaded = await over(log).state("account", ACCOUNT_ID)
    assert 0 < log.read_messages <= BROUGHT_FORWARD_EVERY_MIN + 1
    stored = await log.read("EVT_BILLING", SUBJECT)
    decoder = EventDecoder(ACCOUNT.events)
    folded = ACCOUNT.initial
    facts = [fact for message in stored for fact in decoder.commit(message.data).events]
    for fact in facts:
        if type(fact) is not ACCOUNT.whole:
            folded = ACCOUNT.evolve(folded, fact)
    assert sum(type(fact) is ACCOUNT.whole for fact in facts) >= 2
    assert loaded.totals == folded.totals
    assert loaded.meters == folded.meters
    assert loaded.grants == folded.grants
    assert loaded.charged_until == folded.charged_until
    await over(log).execute(tick((TICKS + 1) * 60))
    newest = decode_commit((await log.read("EVT_BILLING", SUBJECT))[-1].data)
    assert newest.version == len(facts), "versions count every fact, also those that were not read"
