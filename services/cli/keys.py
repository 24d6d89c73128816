"""`keys …`: API keys of the account, through the HTTP API. The secret of a new key is shown once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli import output
from services.cli.api import data_of, platform_api
from services.cli.running import DEFAULT_DATA_DIR, DataDir, running_state

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")
SHOWN = ("id", "name", "key_prefix", "last4", "is_active", "scopes", "created_at", "expires_at")


@app.command("list")
def list_keys(data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False) -> None:
    """Keys of the account, revoked ones included."""
    items: list[dict[str, Any]] = data_of(platform_api(running_state(data_dir)).ask("GET", "/api-keys"))
    if json:
        output.as_json(items)
        return
    rows = [[", ".join(item[name]) if name == "scopes" else item.get(name) for name in SHOWN] for item in items]
    output.as_table(SHOWN, rows, empty="no keys")


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="Scope such as instances:read; several; default all.")] = None,
    days: Annotated[int, typer.Option(min=0, max=3650, help="Days until it expires; 0 never.")] = 0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Make a key and show it, this once."""
    body: dict[str, Any] = {"name": name}
    if scope:
        body["scopes"] = scope
    if days:
        body["expires_in_days"] = days
    made: dict[str, Any] = data_of(platform_api(running_state(data_dir)).ask("POST", "/api-keys", body=body))
    if json:
        output.as_json(made)
    else:
        output.as_fields({"id": made["id"], "key": made["key"], "scopes": ", ".join(made["scopes"])})
        output.warn("keep the key now; it is not shown again")


@app.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(metavar="KEY", help="Key id (key_…).")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Refuse a key from now on."""
    done = data_of(platform_api(running_state(data_dir)).ask("DELETE", f"/api-keys/{key_id}"))
    if json:
        output.as_json(done)
    else:
        output.tell(f"revoked {key_id}")
