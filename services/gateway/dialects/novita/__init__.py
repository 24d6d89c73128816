"""The Novita dialect (seeds 001, 002, 004): `/api` and `/health`, bare bodies, errors under `error`.

`DIALECT` says how it speaks; the modules beside hold its routes by noun. Unknown fields are ignored. Where the seeds
disagree, contract novita A5 and A6 choose.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from services.gateway.dialects import Dialect, Failure, Schema, milliseconds

RENAMES = {
    "UNAUTHENTICATED": "AUTHENTICATION_ERROR",
    "PROVIDER_ERROR": "NOVITA_API_ERROR",
    "PROVIDER_TIMEOUT": "NOVITA_API_ERROR",
    "OFFER_UNAVAILABLE": "NO_AVAILABLE_PRODUCTS",
}


class NovitaError(Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Seed 001, Error Responses. `details` has the first problem as `field` and `reason`, all under `errors`."""

    code: str
    message: str
    details: dict[str, Any] | None = None
    timestamp: str
    request_id: str
    correlation_id: str
    validation_errors: list[dict[str, Any]] | None = None
    retryable: bool
    retry_after: int | None = None
    advice: str


class NovitaFailure(Struct, frozen=True):
    error: NovitaError


def _failure(failure: Failure) -> NovitaFailure:
    problems: list[dict[str, Any]] = failure.facts.get("errors", [])
    details = dict(failure.facts)
    if problems:
        details["errors"] = named = [
            {"field": problem["field"], "message": problem["reason"], "value": problem.get("value")}
            for problem in problems
        ]
    else:
        named = None
    return NovitaFailure(
        NovitaError(
            code=failure.code,
            message=failure.message,
            details=details or None,
            timestamp=milliseconds(failure.at),
            request_id=failure.request_id,
            correlation_id=failure.correlation_id,
            validation_errors=named,
            retryable=failure.retry,
            retry_after=failure.retry_after_s,
            advice=failure.advice,
        )
    )


def _success_schema(data: Schema, has_meta: bool) -> Schema:
    del has_meta
    return data


DIALECT = Dialect(
    name="novita",
    language="en",
    renames=RENAMES,
    failure=_failure,
    failure_schema=NovitaFailure,
    success_schema=_success_schema,
    open_on_loopback=True,
    limits_addresses=True,
)
