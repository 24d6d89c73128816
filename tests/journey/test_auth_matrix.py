"""Every route of the table x every kind of credential -> the documented status; and nobody learns what others have.

Generated from the route table: a route without a row in `access_rows.py` fails here, by name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from proto.gateway.words import Scope
from services.gateway.auth import AGENT, ANYONE
from services.gateway.routes import ROUTES
from services.gateway.routing import Route
from tests.journey.access_rows import ROWS, Row
from tests.journey.access_things import CREDENTIALS, Access, access_platform
from tests.journey.platform import Answer
from tests.journey.platform import wipe as wipe_data

REFUSED_LOGINS = ("none", "malformed", "unknown", "expired", "revoked")
RATE_HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


@pytest.fixture(scope="module")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    data_dir = tmp_path_factory.mktemp("access") / "data"
    with access_platform(data_dir) as made:
        yield made
    wipe_data(data_dir)


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def documented(route: Route, row: Row, credential: str) -> int:
    """What the contract says (seed 000, contract dumont 0)."""
    if route.scope == ANYONE:
        return row.right
    if credential in REFUSED_LOGINS:
        return 401
    if route.scope == AGENT:
        return row.right if credential == "right" else 401
    if credential == "wrong scope":
        return 403
    return row.stranger_status if credential == "other account" else row.right


def test_no_route_is_left_out() -> None:
    table = {(route.method, route.path) for route in ROUTES}
    missing, gone = sorted(table - set(ROWS)), sorted(set(ROWS) - table)
    assert not missing, f"add a row to tests/journey/access_rows.py for {missing}"
    assert not gone, f"no such route: {gone}"


def test_every_scope_of_the_table_can_be_given_to_a_key() -> None:
    given = set(get_args(Scope))
    assert {route.scope for route in ROUTES} - {ANYONE} <= given


def test_a_row_names_what_it_must() -> None:
    for route in ROUTES:
        row = ROWS[route.method, route.path]
        # 409: what the row can name is not in the state that the route is about.
        assert row.right in (*route.statuses, 409), f"{named(route)}: {row.right} is not documented"
        assert set(row.path) == {name for name, _ in route.parameters}, named(route)


@pytest.mark.parametrize("route", ROUTES, ids=named)
def test_every_credential_is_answered_as_documented(access: Access, route: Route) -> None:
    row = ROWS[route.method, route.path]
    method, path, body = access.target(route.method, row, route.path)
    for credential in CREDENTIALS:
        key = access.credential(credential, route, row)
        answer = access.ask(method, path, key, body)
        said = f"{named(route)} with {credential}: {answer.status} {answer.text[:300]}"
        assert answer.status == documented(route, row, credential), said
        assert all(answer.headers[name].isdigit() for name in RATE_HEADERS), said
        assert answer.headers["x-request-id"], said
        if key:
            assert key not in answer.text, said
        if answer.status == 401:
            assert answer.headers["www-authenticate"].startswith("Bearer"), said
        if credential == "other account" and route.scope != ANYONE:
            assert not any(thing in answer.text for thing in ids_of(access, path, body)), said


@pytest.mark.parametrize("route", [route for route in ROUTES if ROWS.get((route.method, route.path), Row()).is_private],
                         ids=named)  # fmt: skip
def test_what_others_have_is_answered_as_what_nobody_has(access: Access, route: Route) -> None:
    row = ROWS[route.method, route.path]
    method, path, body = access.target(route.method, row, route.path)
    stranger = access.credential("other account", route, row)
    told = access.ask(method, path, stranger, body)
    for thing in access.named(row):
        path, body = path.replace(thing, nobodys(thing)), json.loads(json.dumps(body).replace(thing, nobodys(thing)))
    missing = access.ask(method, path, stranger, body)
    things = access.named(row)
    assert missing.status == 404
    assert shape(told, things) == shape(missing, [nobodys(thing) for thing in things])


def nobodys(thing: str) -> str:
    """An id of the same form that nobody has."""
    return thing[:-6] + "0" * 6 if thing[-6:] != "0" * 6 else thing[:-6] + "1" * 6


def shape(answer: Answer, things: list[str]) -> tuple[int, dict[str, str], str]:
    """All that a caller can see, but for what names the request itself and what was asked for."""
    text = answer.text.replace(answer.headers["x-request-id"], "REQUEST")
    text = text.replace(answer.headers["x-correlation-id"], "CORRELATION")
    for thing in things:
        text = text.replace(thing, "THING")
    told = json.loads(text)
    told.get("error", {}).pop("timestamp", None)
    own = {"date", "x-request-id", "x-correlation-id", "content-length", *RATE_HEADERS}
    return answer.status, {name: value for name, value in answer.headers.items() if name not in own}, json.dumps(told)


def ids_of(access: Access, path: str, body: Any) -> list[str]:
    """Things of ours that were not named in the request itself (an error may repeat what was asked)."""
    asked = path + json.dumps(body)
    return [thing for thing in access.things.values() if "_" in thing and thing not in asked]
