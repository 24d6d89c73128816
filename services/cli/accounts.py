"""`accounts …`: who may use this installation and on which plan. For whoever runs it."""

from __future__ import annotations

from typing import Annotated

import typer

from proto.gateway.commands import ChangePlan, OpenAccount
from proto.gateway.queries import AccountView, ListAccounts
from proto.gateway.words import ACCOUNT_PATTERN
from services.cli import operator, output
from services.cli.exits import USAGE, Exit
from services.cli.running import DEFAULT_DATA_DIR, DataDir, running_state
from services.cli.up import PlanName

app = typer.Typer(no_args_is_help=True, help="Open accounts and set their plans.")
COLUMNS = ("account_id", "name", "plan", "opened_at")

AccountId = Annotated[str, typer.Argument(metavar="ACCOUNT", help="acct_…, letters, digits and _.")]


@app.command("list")
def list_accounts(data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False) -> None:
    """Every account and its plan."""
    found: list[AccountView] = operator.answer_to(running_state(data_dir), ListAccounts())
    rows = [{name: getattr(account, name) for name in COLUMNS} for account in found]
    if json:
        output.as_json(rows)
    else:
        output.as_table(COLUMNS, [list(row.values()) for row in rows], empty="no accounts")


@app.command("open")
def open_account(
    account: AccountId,
    name: Annotated[str, typer.Option(help="Whom it is for.")] = "",
    plan: Annotated[PlanName, typer.Option(help="What it may ask.")] = PlanName.free,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Make an account; one that exists stays as it is."""
    wish = OpenAccount(
        now=operator.now(),
        account_id=checked(account),
        actor=operator.ACTOR,
        name=name or account,
        plan=plan.value,
    )
    operator.carry_out(running_state(data_dir), wish)
    _tell(account, f"{account} is open", json=json)


@app.command("set-plan")
def set_plan(
    account: AccountId,
    plan: Annotated[PlanName, typer.Argument(help="What it may ask from now on.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Put an account on another plan, at once on every gateway."""
    wish = ChangePlan(
        now=operator.now(),
        account_id=checked(account),
        actor=operator.ACTOR,
        plan=plan.value,
    )
    operator.carry_out(running_state(data_dir), wish)
    _tell(account, f"{account} is on {plan.value}", json=json)


def checked(account: str) -> str:
    if not ACCOUNT_PATTERN.fullmatch(account):
        raise Exit(f"{account!r} is not an account id: acct_ and letters, digits or _, at most 65 in all", USAGE)
    return account


def _tell(account: str, said: str, *, json: bool) -> None:
    if json:
        output.as_json({"account_id": account})
    else:
        output.tell(said)
