"""Public events as customers follow them: one reader of PUB per gateway, whatever the number of clients.

Used by the routes under /api/v1/events. Split by noun: `ring` (the newest events, in memory, by account), `feed` (who
follows live and what it is handed), `stream` (one open answer). A client that is behind reads pages of the log until
it has reached the ring; nobody has a consumer of his own at the server.
"""
