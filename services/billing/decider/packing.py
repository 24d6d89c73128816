"""The account as one fact: as it is while it is small, compressed when thousands of things run on it. Pure.

Used by `account`, which says the fact, and `folding`, which takes it. Ids and instants repeat in every meter, so what
is packed has about a quarter of its size, base64 included, and fits a commit up to `METERS_MAX`.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode

import msgspec

from proto.billing.events import BroughtForward
from proto.billing.ledger import Ledger
from services.billing.decider.state import Account, added_up, ledger_of

PLAIN_BYTES_MAX = 128 * 1024  # about 500 meters: until then the log can be read by eye
UNPACKED_BYTES_MAX = 16 * 1024 * 1024  # many times what METERS_MAX comes to: more is not ours

_decoder = msgspec.json.Decoder(Ledger)


class NotALedger(Exception):
    """A packed account that is no such thing: a bug, and never folded."""


def pack(account: Account) -> BroughtForward:
    ledger = ledger_of(account)
    plain = msgspec.json.encode(ledger)
    if len(plain) <= PLAIN_BYTES_MAX:
        return BroughtForward(ledger=ledger)
    return BroughtForward(
        ledger=Ledger(account_id=ledger.account_id), packed=b64encode(zlib.compress(plain, 1)).decode()
    )


def unpack(event: BroughtForward) -> Account:
    """Raises NotALedger."""
    if not event.packed:
        return added_up(event.ledger)
    inflate = zlib.decompressobj()
    plain = inflate.decompress(b64decode(event.packed), UNPACKED_BYTES_MAX)
    if inflate.unconsumed_tail or not inflate.eof:
        raise NotALedger(f"{event.ledger.account_id}: over {UNPACKED_BYTES_MAX} bytes, or cut off")
    return added_up(_decoder.decode(plain))
