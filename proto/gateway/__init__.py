"""The language of the gateway: API keys of accounts. `words`, `events`, `commands`, `queries`."""
