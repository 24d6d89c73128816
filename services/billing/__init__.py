"""The billing service: a prepaid ledger that is right to the micro-unit."""
