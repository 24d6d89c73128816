"""The billing service's settings, read once by `__main__`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from libs.config import setting


class BillingSettings(Struct, frozen=True, kw_only=True):
    """How the billing service is run. Each field is one variable, DUMONT_<FIELD>."""

    prepaid: Annotated[
        bool, setting("what is not covered is stopped; false for a cloud of one's own, which only counts and warns")
    ] = True
    welcome_credit_usd: Annotated[
        int, setting("credit a new account is given (`./dumont up` in dev mode: 100)", unit="USD", ge=0, le=100_000)
    ] = 0
    volume_price_usd_micros_per_gb_hour: Annotated[
        int, setting("what a volume costs; 137 is about 0.10 USD per GB and month", unit="micro-USD", ge=0)
    ] = 137
    storage_price_usd_micros_per_gb_hour: Annotated[
        int,
        setting(
            "what the files of a hibernated instance cost; 28 is about 0.02 USD per GB and month",
            unit="micro-USD",
            ge=0,
        ),
    ] = 28
    gpu_price_usd_micros_per_hour: Annotated[
        int,
        setting("what a hold reckons with for a GPU whose price is not known yet", unit="micro-USD", ge=1),
    ] = 2_500_000
    storage_kept_days: Annotated[
        int,
        setting(
            "files of an empty account are kept unpaid so long, then deleted with a week's notice; 0: for ever",
            unit="days",
            ge=0,
            le=3_650,
        ),
    ] = 30
    reconcile_every_s: Annotated[
        int, setting("books are compared with providers' charges this often", unit="s", ge=1)
    ] = 60
    reconcile_after_s: Annotated[
        int,
        setting("a machine is compared this long after it ended: providers charge late", unit="s", ge=0),
    ] = 7_200
