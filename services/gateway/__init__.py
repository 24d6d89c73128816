"""The gateway: HTTP in, bus out. Owns API keys; everything else belongs to the services it asks."""
