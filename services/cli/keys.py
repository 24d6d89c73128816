"""`keys …`: API keys of the account, through the HTTP API. The secret of a new key is shown once.

With `--account` the operator makes, lists and revokes keys of somebody else, over the bus: the first one of a new
account, and one whose owner is gone.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Annotated, Any, cast, get_args

import typer
from msgspec.structs import asdict

from libs.embedded.state import State
from proto.gateway.commands import IssueKey, RevokeKey
from proto.gateway.queries import KeyView, ListKeys
from proto.gateway.words import KEY_PREFIX, KEY_SECRET_BYTES, Scope, fingerprint
from services.cli import operator, output
from services.cli.accounts import known
from services.cli.api import data_of, platform_api
from services.cli.exits import USAGE, Exit
from services.cli.running import DEFAULT_DATA_DIR, DataDir, running_state

app = typer.Typer(no_args_is_help=True, help="Create, list, rotate and revoke API keys.")
Account = Annotated[str, typer.Option(help="Of this account (acct_…) instead of the key's own; for the operator.")]
SHOWN = ("id", "name", "last4", "is_active", "scopes", "expires_at", "last_used_at", "created_at", "key_prefix")


@app.command("list")
def list_keys(account: Account = "", data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False) -> None:
    """Keys of the account, revoked ones included."""
    state = running_state(data_dir)
    items = _keys_of(state, account) if account else data_of(platform_api(state).ask("GET", "/api-keys"))
    if json:
        output.as_json(items)
        return
    output.as_table(SHOWN, [[item.get(name) for name in SHOWN] for item in items], empty="no keys")


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="Scope such as instances:read; several; default all.")] = None,
    days: Annotated[int, typer.Option(min=0, max=3650, help="Days until it expires; 0 never.")] = 0,
    account: Account = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Make a key and show it, this once."""
    state = running_state(data_dir)
    if account:
        made = _made_for(state, account, name, tuple(scope or ["all"]), days)
    else:
        body: dict[str, Any] = {"name": name}
        if scope:
            body["scopes"] = scope
        if days:
            body["expires_in_days"] = days
        made = data_of(platform_api(state).ask("POST", "/api-keys", body=body))
    _show_secret(made, json=json)


@app.command("rotate")
def rotate_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Key id (key_…).")],
    overlap: Annotated[int, typer.Option(min=0, max=43200, help="Minutes the old key still works.")] = 1440,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Replace a key; the old one works on for a while."""
    body = {"overlap_minutes": overlap}
    made: dict[str, Any] = data_of(
        platform_api(running_state(data_dir)).ask("POST", f"/api-keys/{key_id}/rotate", body=body)
    )
    _show_secret(made, json=json)


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Key id (key_…).")],
    account: Account = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Refuse a key from now on."""
    state = running_state(data_dir)
    if account:
        known(state, account)
        wish = RevokeKey(now=operator.now(), key_id=key_id, account_id=account, actor=operator.ACTOR, reason="operator")
        operator.carry_out(state, wish)
    else:
        platform_api(state).ask("DELETE", f"/api-keys/{key_id}")
    if json:
        output.as_json({"id": key_id, "revoked": True})
    else:
        output.tell(f"revoked {key_id}")


def _keys_of(state: State, account: str) -> list[dict[str, Any]]:
    known(state, account)
    now = operator.now()
    found: list[KeyView] = operator.answer_to(state, ListKeys(account_id=account))
    return [
        {
            "id": key.key_id,
            "name": key.name,
            "key_prefix": key.prefix,
            "last4": key.last4,
            "is_active": key.revoked_at is None and (key.expires_at is None or now < key.expires_at),
            "scopes": list(key.scopes),
            "created_at": key.issued_at,
            "expires_at": key.expires_at,
            "last_used_at": key.last_used_at,
        }
        for key in found
    ]


def _made_for(state: State, account: str, name: str, scopes: tuple[str, ...], days: int) -> dict[str, Any]:
    wrong = sorted(set(scopes) - set(get_args(Scope)))
    if wrong:
        raise Exit(f"no such scope: {', '.join(wrong)}; there are {', '.join(get_args(Scope))}", USAGE)
    known(state, account)
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_SECRET_BYTES)
    now = operator.now()
    wish = IssueKey(
        now=now,
        key_id=operator.fresh_id("key"),
        account_id=account,
        actor=operator.ACTOR,
        name=name,
        **asdict(fingerprint(key)),
        scopes=cast("tuple[Scope, ...]", scopes),
        expires_at=now + timedelta(days=days) if days else None,
    )
    operator.carry_out(state, wish)
    return {"id": wish.key_id, "account_id": account, "key": key, "scopes": list(scopes)}


def _show_secret(made: dict[str, Any], *, json: bool) -> None:
    if json:
        output.as_json(made)
        return
    output.as_fields({"id": made["id"], "key": made["key"], "scopes": made["scopes"]})
    if made.get("replaced_valid_until"):
        output.tell(f"{made['replaces']} works until {made['replaced_valid_until']}")
    output.warn("keep the key now; it is not shown again")
