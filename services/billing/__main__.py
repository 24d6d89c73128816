"""The billing service's process: its settings and its payment adapters. The rooms as one value are in `rooms.py`."""

import dataclasses
from datetime import timedelta

from libs import config, process
from libs.hosting import Ground, host
from libs.runtime.service import Service
from services.billing.config import BillingSettings
from services.billing.decider import aggregates
from services.billing.effects import Instruments, PaymentAdapter, World, settle_by_hand
from services.billing.rooms import ROOMS, SERVICE

# Money that was received outside and is booked by its reference; an adapter of a payment provider takes its method.
# `auto`: top-ups that a customer has agreed to.
PAYMENTS: dict[str, PaymentAdapter] = dict.fromkeys(("manual", "card", "pix", "boleto", "wire", "auto"), settle_by_hand)


async def serve(running: process.Running) -> None:
    settings = config.read(BillingSettings)

    async def build(ground: Ground) -> tuple[Service, World]:
        about = (ground.clock, ground.database, settings, PAYMENTS, ground.logger, Instruments(ground.metrics))
        kept = timedelta(days=settings.storage_kept_days) if settings.storage_kept_days else None
        rules = aggregates(prepaid=settings.prepaid, storage_kept=kept)
        return dataclasses.replace(SERVICE, aggregates=rules), World(*about)

    await host(SERVICE.name, ROOMS, build, running)


def main() -> None:
    process.run(serve)


if __name__ == "__main__":
    main()
