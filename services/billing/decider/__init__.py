"""Rules of the billing service: the account (ledger), the payment, the machine (reconciliation). Pure.

Called by the runtime through `AGGREGATES`.
"""

from collections.abc import Sequence
from datetime import timedelta

from libs.runtime.service import Aggregate
from services.billing.decider.account import ACCOUNT, account
from services.billing.decider.machine import MACHINE
from services.billing.decider.payment import PAYMENT

AGGREGATES = (ACCOUNT, PAYMENT, MACHINE)


def aggregates(*, prepaid: bool, storage_kept: timedelta | None) -> Sequence[Aggregate]:
    """As an installation wants its accounts."""
    return account(prepaid=prepaid, storage_kept=storage_kept), PAYMENT, MACHINE
