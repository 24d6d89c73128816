"""`instances …`: the customer's machines, through the HTTP API with the stored key."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from services.cli import output
from services.cli.api import data_of, platform_api
from services.cli.running import DEFAULT_DATA_DIR, DataDir, running_state

app = typer.Typer(no_args_is_help=True, help="List, create, start, stop, hibernate and delete instances.")

InstanceId = Annotated[str, typer.Argument(metavar="INSTANCE", help="Instance id (inst_…).")]
Wait = Annotated[int, typer.Option(min=0, max=60, help="Seconds to wait until the change is complete.")]
SHOWN = ("id", "status", "gpu", "name", "cost_per_hour", "region", "num_gpus", "provider", "ssh_command")


@app.command("list")
def list_instances(
    status: Annotated[str, typer.Option(help="Only instances in this status.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many at most.")] = 50,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many, the newest.")] = 0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Instances of the key's account, newest first."""
    wanted = {"status": status, "limit": limit, "offset": offset}
    answer = platform_api(running_state(data_dir)).ask("GET", "/instances", query=wanted)
    items: list[dict[str, Any]] = data_of(answer)
    if json:
        output.as_json(items)
    else:
        output.as_table(SHOWN, [_row(item) for item in items], empty="no instances")
    total = answer["meta"]["total"]
    if len(items) < total:
        output.warn(f"{len(items)} of {total} instances; --limit and --offset choose others")


@app.command("get")
def get_instance(instance: InstanceId, data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False) -> None:
    """One instance with everything known of it."""
    _show(platform_api(running_state(data_dir)).ask("GET", f"/instances/{instance}"), json=json)


@app.command("create")
def create_instance(
    gpu: Annotated[str, typer.Option(help="GPU model; the cheapest fitting offer is taken.")] = "",
    offer: Annotated[str, typer.Option(help="This very offer, instead of --gpu.")] = "",
    image: Annotated[str, typer.Option(help="Image to run.")] = "",
    name: Annotated[str, typer.Option(help="Name to recognise it by.")] = "",
    disk: Annotated[int, typer.Option(min=10, max=10_000, help="Disk in GB.")] = 100,
    port: Annotated[
        list[int] | None, typer.Option(help="Port to reach from outside; may be given several times.")
    ] = None,
    ssh_key: Annotated[str, typer.Option(help="Public key that may log in.")] = "",
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: output.AsJson = False,
) -> None:
    """Rent a machine. Give --gpu or --offer."""
    wish: dict[str, Any] = {"gpu": gpu, "offer_id": offer, "image": image, "name": name, "ssh_key": ssh_key}
    body = {key: value for key, value in wish.items() if value} | {"disk_size": disk}
    if port:
        body["ports"] = port
    _show(platform_api(running_state(data_dir)).ask("POST", "/instances", body=body), json=json)


@app.command("start")
def start_instance(
    instance: InstanceId, wait: Wait = 0, data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False
) -> None:
    """Start an instance that is stopped or hibernated."""
    _act("start", instance, wait, data_dir, json=json)


@app.command("stop")
def stop_instance(
    instance: InstanceId, wait: Wait = 0, data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False
) -> None:
    """Stop an instance; its disk stays."""
    _act("stop", instance, wait, data_dir, json=json)


@app.command("hibernate")
def hibernate_instance(
    instance: InstanceId, wait: Wait = 0, data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False
) -> None:
    """Put its files into storage and give its machine back; a start brings both again."""
    _act("hibernate", instance, wait, data_dir, json=json)


@app.command("delete")
def delete_instance(
    instance: InstanceId, wait: Wait = 0, data_dir: DataDir = DEFAULT_DATA_DIR, json: output.AsJson = False
) -> None:
    """Delete an instance and its disk."""
    api = platform_api(running_state(data_dir))
    _show(api.ask("DELETE", f"/instances/{instance}", query={"wait": wait}), json=json)


def _row(item: dict[str, Any]) -> list[object]:
    """Without the name of one that was given none: it is its id."""
    return ["" if name == "name" and item["name"] == item["id"] else item.get(name) for name in SHOWN]


def _act(verb: str, instance: str, wait: int, data_dir: DataDir, *, json: bool) -> None:
    api = platform_api(running_state(data_dir))
    _show(api.ask("POST", f"/instances/{instance}/{verb}", query={"wait": wait}), json=json)


def _show(answer: Any, *, json: bool) -> None:
    found: dict[str, Any] = data_of(answer)
    if json:
        output.as_json(found)
    else:
        output.as_fields({name: value for name, value in found.items() if value not in (None, "", {}, [])})
