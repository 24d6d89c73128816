"""The instance service: what the customer owns, the machines behind it, the hosts they stand on."""
