"""Limits: how much an account, an address or a machine may ask. `table` holds the numbers, `bucket` the arithmetic,
`limiter` the buckets of this replica and its agreement with the others, `charging` which buckets a request draws on."""
