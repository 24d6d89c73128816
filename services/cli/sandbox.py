"""`sandbox …`: the stand-in cloud behind the platform, through its own HTTP API. Takes machines away on purpose."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.embedded.state import State
from libs.money import format_micros
from services.cli import output
from services.cli.api import Api, data_of, platform_api
from services.cli.exits import USAGE, Exit
from services.cli.running import DEFAULT_DATA_DIR, DataDir, running_state

app = typer.Typer(no_args_is_help=True, help="Look at the sandbox cloud, take machines away, make it fail.")
MACHINE_COLUMNS = ("machine_id", "status", "gpu", "region", "billing", "gpu_count", "interruption", "label")
OFFER_COLUMNS = ("offer_id", "gpu", "gpu_count", "usd_per_hour", "region", "billing", "host_id")

FAULTS_OF_WORDS = frozenset({"sold_out"})


class Reason(StrEnum):
    spot_preemption = "spot_preemption"
    host_failure = "host_failure"
    provider_lost = "provider_lost"


@app.command("list")
def list_machines(data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False) -> None:
    """Machines the sandbox cloud knows."""
    items = _cloud(running_state(data_dir)).ask("GET", "/v1/machines")["machines"]
    _show(items, MACHINE_COLUMNS, json=json, empty="no machines")


@app.command("offers")
def list_offers(
    gpu: Annotated[str, typer.Option(help="Only this GPU model.")] = "",
    region: Annotated[str, typer.Option(help="Only this region.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """What can be rented now, cheapest first. With --json prices are in millionths of a dollar."""
    items = _cloud(running_state(data_dir)).ask("GET", "/v1/offers", query={"gpu": gpu, "region": region})["offers"]
    if not json:
        items = [offer | {"usd_per_hour": format_micros(offer["price_usd_micros_per_hour"])} for offer in items]
    _show(items, OFFER_COLUMNS, json=json, empty="no offers")


@app.command("interrupt")
def interrupt(
    target: Annotated[str, typer.Argument(metavar="INSTANCE|MACHINE", help="inst_… or a machine of `sandbox list`.")],
    reason: Annotated[Reason, typer.Option(help="How it is taken away.")] = Reason.spot_preemption,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Take a machine away, as a spot market does: its processes are killed and its files are gone."""
    state = running_state(data_dir)
    machine_id = _machine_of(state, target) if target.startswith("inst_") else target
    _cloud(state).ask("POST", f"/v1/machines/{machine_id}/interrupt", body={"reason": reason.value})
    if json:
        output.as_json({"machine_id": machine_id, "reason": reason.value})
    else:
        output.tell(f"took {machine_id} away ({reason.value})")


@app.command("faults")
def faults(
    wanted: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="For example creates_timing_out=1; 0 disarms.")
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Make the cloud fail on purpose; without a NAME, show what is armed.

    Counts, used up one by one: creates_timing_out (created, never answered), creates_failing, boots_failing,
    boots_slow (each by boot_slow_ms), boots_unwell (for unwell_ms), requests_limited. Until changed: list_lag_ms,
    sold_out (GPU models, comma-separated).
    """
    cloud = _cloud(running_state(data_dir))
    body = dict(_fault(text) for text in wanted or ())
    armed: dict[str, Any] = cloud.ask("POST", "/v1/faults", body=body) if body else cloud.ask("GET", "/v1/faults")
    if json:
        output.as_json(armed)
    else:
        rows = [[name, value] for name, value in armed.items() if value]
        output.as_table(["fault", "value"], rows, empty="nothing is armed")


def _fault(text: str) -> tuple[str, object]:
    """One setting, as the cloud's HTTP API takes it; whether it exists the cloud says."""
    name, equals, value = text.partition("=")
    if not equals:
        raise Exit(f"{text!r} is not NAME=VALUE, for example creates_timing_out=1", USAGE)
    if name in FAULTS_OF_WORDS:
        return name, [word.strip() for word in value.split(",") if word.strip()]
    if not value.isascii() or not value.isdigit():
        raise Exit(f"{name} takes a whole number, not {value!r}", USAGE)
    return name, int(value)


def _machine_of(state: State, instance_id: str) -> str:
    found: dict[str, Any] = data_of(platform_api(state).ask("GET", f"/instances/{instance_id}"))
    machine_id = found.get("provider_instance_id")
    if not machine_id:
        raise Exit(f"{instance_id} has no machine now (status {found.get('status')})")
    if found.get("provider") != "sandbox":
        raise Exit(f"{instance_id} runs at {found.get('provider')}, not in the sandbox")
    return str(machine_id)


def _cloud(state: State) -> Api:
    if not state.sandbox_url:
        raise Exit("this platform runs without the sandbox cloud")
    return Api(state.sandbox_url, (Path(state.data_dir) / "secrets" / "sandbox").read_text().strip())


def _show(items: list[dict[str, Any]], columns: tuple[str, ...], *, json: bool, empty: str) -> None:
    if json:
        output.as_json(items)
    else:
        output.as_table(columns, [[item.get(name) for name in columns] for item in items], empty=empty)
