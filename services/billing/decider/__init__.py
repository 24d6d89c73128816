"""Rules of the billing service: the account (ledger), the payment, the machine (reconciliation). Pure.

Called by the runtime through `AGGREGATES`.
"""

from services.billing.decider.account import ACCOUNT
from services.billing.decider.machine import MACHINE
from services.billing.decider.payment import PAYMENT

AGGREGATES = (ACCOUNT, PAYMENT, MACHINE)
