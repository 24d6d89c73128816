"""Answers to questions about endpoints and deliveries: SQL in, reply struct out, one statement per question.

The runtime calls `QUERIES[type](query, context)`. Split by noun: `endpoints`, `deliveries` (with their attempts),
`pending` (what the dispatcher needs to know). Nothing here writes facts.
"""

from __future__ import annotations

from collections.abc import Mapping

from libs.runtime.service import Answer
from proto.base import Query
from proto.webhook_dispatch.queries import GetEndpoint, ListAttempts, ListDeliveries, ListEndpoints
from services.webhook_dispatch.queries import deliveries, endpoints

QUERIES: Mapping[type[Query], Answer] = {
    GetEndpoint: endpoints.get_endpoint,
    ListEndpoints: endpoints.list_endpoints,
    ListAttempts: deliveries.list_attempts,
    ListDeliveries: deliveries.list_deliveries,
}
