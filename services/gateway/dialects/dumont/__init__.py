"""The Dumont dialect (seed 000): `/api/v1`, one envelope, Portuguese unless the caller asks otherwise.

`DIALECT` says how it speaks; the modules beside hold its routes by noun. Unknown fields are refused.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from msgspec import UNSET, Struct, UnsetType

from services.gateway.call import Answer
from services.gateway.dialects import Dialect, Failure, Schema

D = TypeVar("D")
LIST_LIMIT_DEFAULT = 50


class Success(Struct, Generic[D], frozen=True, kw_only=True):
    """Seed 000, Formato de Resposta. `meta` only beside lists."""

    success: Literal[True] = True
    data: D
    meta: Page | UnsetType = UNSET


class Page(Struct, frozen=True):
    """Which part of a list this is; `total` counts all that match."""

    total: int
    limit: int
    offset: int


class DumontError(Struct, frozen=True):
    """`code` is the contract, `message` is for people, `details` names fields and reasons."""

    code: str
    message: str
    details: dict[str, Any]
    retryable: bool
    advice: str
    request_id: str


class DumontFailure(Struct, frozen=True, kw_only=True):
    success: Literal[False] = False
    error: DumontError


def ok(data: Any, status: int = 200) -> Answer:
    return Answer(status, Success(data=data))


def page(items: list[Any], *, total: int, limit: int, offset: int) -> Answer:
    return Answer(200, Success(data=items, meta=Page(total=total, limit=limit, offset=offset)))


def _failure(failure: Failure) -> DumontFailure:
    return DumontFailure(
        error=DumontError(
            code=failure.code,
            message=failure.message,
            details=failure.facts,
            retryable=failure.retry,
            advice=failure.advice,
            request_id=failure.request_id,
        )
    )


def _success_schema(data: Schema, has_meta: bool) -> Schema:
    properties: Schema = {"success": {"const": True}, "data": data}
    if has_meta:
        properties["meta"] = {"$ref": "#/components/schemas/Page"}
    return {"type": "object", "required": list(properties), "properties": properties}


DIALECT = Dialect(
    name="dumont",
    language="pt",
    renames={
        "INSTANCE_NOT_STARTABLE": "INVALID_STATE",
        "INSTANCE_NOT_STOPPABLE": "INVALID_STATE",
        "INSTANCE_NOT_DELETABLE": "INVALID_STATE",
    },
    failure=_failure,
    failure_schema=DumontFailure,
    success_schema=_success_schema,
    open_on_loopback=False,
)
