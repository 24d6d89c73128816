"""`accounts …`: who may use this installation and on which plan. For whoever runs it."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from libs.embedded.state import State
from libs.ids import derive_id
from libs.money import format_micros, parse_micros
from proto.billing.commands import AdjustLedger
from proto.billing.queries import BalanceView, GetBalance
from proto.gateway.commands import ChangePlan, OpenAccount
from proto.gateway.queries import AccountView, ListAccounts
from proto.gateway.words import ACCOUNT_PATTERN
from services.cli import operator, output
from services.cli.exits import USAGE, Exit
from services.cli.running import DEFAULT_DATA_DIR, DataDir, running_state
from services.cli.up import PlanName

app = typer.Typer(no_args_is_help=True, help="Open accounts, set their plans, see and correct their balance.")
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


@app.command("balance")
def show_balance(account: AccountId, data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False) -> None:
    """What an account has, what is held of it and how long it lasts. In dollars."""
    state = running_state(data_dir)
    known(state, account)
    view: BalanceView = operator.answer_to(state, GetBalance(account_id=account))
    amounts = {
        "balance": view.balance_usd_micros,
        "held": view.held_usd_micros,
        "available": view.available_usd_micros,
        "hourly_cost": view.hourly_cost_usd_micros,
        "uncollected": -view.totals.get("uncollected", 0),
    }
    about: dict[str, Any] = {
        "account_id": account,
        "status": view.stage,
        **{name: format_micros(micros) for name, micros in amounts.items()},
        "runway_seconds": view.runway_s,
        "storage_kept_until": view.storage_kept_until,
    }
    if json:
        output.as_json(about)
    else:
        output.as_fields({name: value for name, value in about.items() if value is not None})


@app.command("adjust")
def adjust(
    account: AccountId,
    usd: Annotated[str, typer.Option(help="What to give, such as 12.50, or (negative) to take.")],
    reason: Annotated[str, typer.Option(help="Why; the customer reads it in the history.")],
    reference: Annotated[str, typer.Option(help="Of this correction: the same again changes nothing.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Correct a balance by an entry of its own. What is taken beyond the balance is owed."""
    try:
        usd_micros = parse_micros(usd)
    except ValueError as error:
        raise Exit(f"--usd: {error}", USAGE) from error
    if not usd_micros or not reason.strip():
        raise Exit("give an amount other than zero and a reason", USAGE)
    state = running_state(data_dir)
    known(state, account)
    wish = AdjustLedger(
        now=operator.now(),
        account_id=account,
        adjustment_id=derive_id("adj", account, reference) if reference else operator.fresh_id("adj"),
        usd_micros=usd_micros,
        reason=reason.strip(),
    )
    operator.carry_out(state, wish)
    if json:
        output.as_json({"account_id": account, "adjustment_id": wish.adjustment_id, "usd_micros": usd_micros})
    else:
        output.tell(f"{account}: {format_micros(usd_micros)} USD, {wish.adjustment_id}")


def known(state: State, account: str) -> None:
    """Exits when there is no such account."""
    accounts: list[AccountView] = operator.answer_to(state, ListAccounts())
    if checked(account) not in {one.account_id for one in accounts}:
        raise Exit(f"there is no account {account}; make it with: dumont accounts open {account}")


def checked(account: str) -> str:
    if not ACCOUNT_PATTERN.fullmatch(account):
        raise Exit(f"{account!r} is not an account id: acct_ and letters, digits or _, at most 65 in all", USAGE)
    return account


def _tell(account: str, said: str, *, json: bool) -> None:
    if json:
        output.as_json({"account_id": account})
    else:
        output.tell(said)
