"""The failover service: see README.md."""
