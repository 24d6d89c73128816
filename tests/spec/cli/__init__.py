"""The command line's own pieces, without a platform."""
