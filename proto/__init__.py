"""The language of the platform: events, commands, queries and refusal codes as msgspec structs.

Everybody imports it; it imports only the standard library and msgspec, and does no I/O.
"""
