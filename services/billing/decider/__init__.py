"""Rules of the billing service: the account (ledger), the payment, the machine (reconciliation). Pure.

Called by the runtime through `AGGREGATES`.
"""

from services.billing.decider.account import ACCOUNT, ACCOUNT_PAID_AFTERWARDS
from services.billing.decider.machine import MACHINE
from services.billing.decider.payment import PAYMENT

AGGREGATES = (ACCOUNT, PAYMENT, MACHINE)
AGGREGATES_PAID_AFTERWARDS = (ACCOUNT_PAID_AFTERWARDS, PAYMENT, MACHINE)
