"""A month on a spot market of three regions, in virtual time, for each strategy: `just sim market` (docs/survival.md).

`weather` has the outages, `cloud` the market, `platform` runs the services' own rooms without a faulty log, `replay`
is one strategy's month, `tally` what it came to, `strategies` which there are.
"""
