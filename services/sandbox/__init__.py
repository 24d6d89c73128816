"""The sandbox cloud: a real GPU cloud in miniature on this host, with an HTTP API. Not part of the platform's core."""
